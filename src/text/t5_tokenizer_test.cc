#include "text/t5_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/charsmap.h"
#include "text/sentencepiece_model.h"
#include "text/test_folder.h"

namespace octavo::text {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Ids = std::vector<std::int32_t>;

constexpr std::int32_t kPad = 0, kEnd = 1, kUnknown = 2;

const T5Tokenizer& t5() {
  static const T5Tokenizer tokenizer = T5Tokenizer::load(test::model_folder("tokenizer_3")).value();
  return tokenizer;
}

Ids plus(Ids left, const Ids& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

TEST(T5Tokenizer, case_matters_and_white_space_does_not) {
  const Ids expected = t5().encode("a red cat");
  EXPECT_NE(t5().encode("A red cat"), expected);
  EXPECT_EQ(t5().encode("  a \t\u3000red\n\u00A0\u0085cat  "), expected);
  EXPECT_TRUE(t5().encode("").empty());
  EXPECT_TRUE(t5().encode(" \n\u2003").empty());
}

TEST(T5Tokenizer, compatibility_forms_are_normalised) {
  EXPECT_EQ(t5().encode("\uFF41\uFF42"), t5().encode("ab")) << "full width";
  EXPECT_EQ(t5().encode("\uFB01x"), t5().encode("fix"));
  EXPECT_EQ(t5().encode("e\u0301"), t5().encode("\u00E9"));
  EXPECT_EQ(t5().encode("a\u0007b"), t5().encode("ab")) << "control characters go";
}

TEST(T5Tokenizer, special_tokens_in_the_text_stand_for_their_ids) {
  EXPECT_THAT(t5().encode("</s><pad><unk>"), ElementsAre(kEnd, kPad, kUnknown));
  EXPECT_EQ(t5().encode("red</s>cat"), plus(plus(t5().encode("red"), {kEnd}), t5().encode("cat")));
  EXPECT_NE(t5().encode("</S>"), Ids{kEnd});
}

TEST(T5Tokenizer, sentinels_count_down_from_the_end_of_the_table) {
  const test::FolderCopy folder("tokenizer_3");
  folder.write("tokenizer_config.json",
               R"({"model_max_length":512,"extra_ids":100,"eos_token":"</s>","pad_token":"<pad>",
    "unk_token":"<unk>","additional_special_tokens":["<extra_id_0>","<extra_id_99>","<extra_id_100>","<other>"]})");
  const T5Tokenizer tokenizer = T5Tokenizer::load(folder.path()).value();
  const auto size = static_cast<std::int32_t>(tokenizer.vocabulary_size());
  EXPECT_THAT(tokenizer.encode("<extra_id_0><extra_id_99>"), ElementsAre(size + 99, size));
  EXPECT_GT(tokenizer.encode("<extra_id_100>").size(), 1u) << "beyond the table: text";
  EXPECT_EQ(tokenizer.model_max_length(), 512);
}

TEST(T5Tokenizer, words_of_unknown_characters_are_one_unknown_each) {
  const Ids once = t5().encode("\u0E01");
  EXPECT_EQ(once.back(), kUnknown);
  EXPECT_EQ(t5().encode("\u0E01\u0E02\u0E03"), once) << "neighbours are fused";
  EXPECT_EQ(t5().encode("\u0E01 \u0E02"), plus(once, once)) << "but not across words";
  EXPECT_EQ(t5().encode("a\u2581b"), t5().encode("a b")) << "the word mark in the text begins a word";
}

TEST(T5Tokenizer, padded_rows_are_cut_and_filled) {
  const Ids empty = t5().encode_padded("", 77);
  EXPECT_EQ(empty.size(), 77u);
  EXPECT_EQ(empty[0], kEnd);
  EXPECT_EQ(empty[1], kPad);
  const Ids whole = t5().encode("three red apples on a tree");
  const auto count = static_cast<int>(whole.size());
  EXPECT_EQ(t5().encode_padded("three red apples on a tree", count + 1), plus(whole, {kEnd}));
  const Ids cut = t5().encode_padded("three red apples on a tree", count);
  EXPECT_EQ(cut, plus(Ids(whole.begin(), whole.end() - 1), {kEnd})) << "the end token stays";
  EXPECT_EQ(t5().encode_padded("red", 1), Ids{kEnd});
}

TEST(T5Tokenizer, bytes_that_are_no_text_are_taken_as_replacement_characters) {
  EXPECT_EQ(t5().encode("a\xFFz"), t5().encode("a\uFFFDz"));
  EXPECT_FALSE(t5().encode(std::string_view("a\0b", 3)).empty());
}

/// Quadratic work would end at the test's time limit.
TEST(T5Tokenizer, a_word_of_a_megabyte_is_encoded_whole) {
  constexpr std::size_t kBytes = 1 << 20;
  EXPECT_GT(t5().encode(std::string(kBytes, 'z')).size(), kBytes / 64);
  std::string marks = "e";
  while (marks.size() < kBytes) marks += "\u0301\u0323";
  EXPECT_FALSE(t5().encode(marks).empty());
}

TEST(T5Tokenizer, broken_files_are_named) {
  const std::string model = test::read(test::model_folder("tokenizer_3") / "spiece.model");
  for (const std::string& bytes :
       {std::string(), model.substr(0, model.size() / 2), std::string(1000, 'x'),
        std::string("<!DOCTYPE html><html></html>"), std::string("version https://git-lfs")}) {
    const test::FolderCopy folder("tokenizer_3");
    folder.write("spiece.model", bytes);
    EXPECT_THAT(T5Tokenizer::load(folder.path()).status().to_string(),
                AllOf(HasSubstr("spiece.model"), HasSubstr("not a sentencepiece model")));
  }
  const test::FolderCopy folder("tokenizer_3");
  folder.write("tokenizer_config.json", "{");
  EXPECT_THAT(T5Tokenizer::load(folder.path()).status().to_string(), HasSubstr("tokenizer_config.json"));
  folder.remove("spiece.model");
  EXPECT_THAT(T5Tokenizer::load(folder.path()).status().to_string(), HasSubstr("spiece.model"));
  folder.write("tokenizer.json", "{}");
  EXPECT_THAT(T5Tokenizer::load(folder.path()).status().to_string(), HasSubstr("copy spiece.model"));
}

TEST(SentencepieceModel, comes_apart_into_table_and_pieces) {
  const std::string bytes = test::read(test::model_folder("tokenizer_3") / "spiece.model");
  const auto parts = parse_sentencepiece_model(bytes, "spiece.model");
  ASSERT_TRUE(parts.ok());
  EXPECT_GT(parts->charsmap.size(), 100'000u);
  EXPECT_LT(parts->pieces.size(), bytes.size() - parts->charsmap.size());
  for (std::size_t length : {std::size_t{1}, bytes.size() / 3, bytes.size() - 1}) {
    EXPECT_FALSE(parse_sentencepiece_model(bytes.substr(0, length), "spiece.model").ok()) << length;
  }
  EXPECT_FALSE(parse_sentencepiece_model("\x0B\x0C", "spiece.model").ok()) << "a group";
  EXPECT_FALSE(parse_sentencepiece_model("\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", "spiece.model").ok());
}

TEST(Charsmap, replaces_short_clusters_whole_and_long_ones_point_by_point) {
  const auto parts = read_sentencepiece_model(test::model_folder("tokenizer_3") / "spiece.model");
  const Charsmap map = Charsmap::parse(parts->charsmap, "spiece.model").value();
  EXPECT_EQ(map.normalize("plain text"), "plain text");
  EXPECT_EQ(map.normalize("\u00BD \uFB01 \u2460"), "1\u20442 fi 1");
  EXPECT_EQ(map.normalize("e\u0301"), "\u00E9");
  EXPECT_EQ(map.normalize("e\u0301\u0302\u0303"), "e\u0301\u0302\u0303") << "seven bytes are looked up one by one";
  EXPECT_EQ(map.normalize("\xFF"), " ") << "the replacement character is white space to the table";
  EXPECT_EQ(Charsmap().normalize("\u00BD"), "\u00BD");
}

TEST(Charsmap, damaged_tables_are_refused_or_harmless) {
  const auto parts = read_sentencepiece_model(test::model_folder("tokenizer_3") / "spiece.model");
  const std::string& blob = parts->charsmap;
  for (const std::size_t length : {std::size_t{1}, std::size_t{4}, std::size_t{100}}) {
    EXPECT_THAT(Charsmap::parse(blob.substr(0, length), "spiece.model").status().to_string(),
                HasSubstr("spiece.model"));
  }
  std::string damaged = blob;
  for (std::size_t at = 4; at < damaged.size(); at += 3) damaged[at] = static_cast<char>(damaged[at] ^ 0x5A);
  const Charsmap map = Charsmap::parse(damaged, "spiece.model").value();
  EXPECT_FALSE(map.normalize("any text \u00BD \uFB01").empty());
}

}  // namespace
}  // namespace octavo::text
