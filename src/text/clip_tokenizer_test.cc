#include "text/clip_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>

#include "text/test_folder.h"
#include "text/tokenizer_files.h"

namespace octavo::text {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Ids = std::vector<std::int32_t>;

const ClipTokenizer& clip(const std::string& folder = "tokenizer") {
  static std::map<std::string, ClipTokenizer> loaded;
  auto found = loaded.find(folder);
  if (found == loaded.end()) {
    found = loaded.emplace(folder, ClipTokenizer::load(test::model_folder(folder)).value()).first;
  }
  return found->second;
}

Ids joined(std::initializer_list<std::string_view> words) {
  Ids all;
  for (const std::string_view word : words) {
    const Ids ids = clip().encode(word);
    all.insert(all.end(), ids.begin(), ids.end());
  }
  return all;
}

TEST(ClipTokenizer, case_white_space_and_normal_form_do_not_matter) {
  const Ids expected = clip().encode("a red caf\u00E9");
  EXPECT_EQ(clip().encode("A RED CAF\u00C9"), expected);
  EXPECT_EQ(clip().encode("a red cafe\u0301"), expected) << "decomposed";
  EXPECT_EQ(clip().encode("\t a \n\u3000red\u00A0\u2003caf\u00E9\r\n"), expected);
  EXPECT_TRUE(clip().encode("").empty());
  EXPECT_TRUE(clip().encode(" \t\n\u2003").empty());
}

TEST(ClipTokenizer, words_end_where_the_pattern_says) {
  EXPECT_EQ(clip().encode("don't"), joined({"don", "'t"}));
  EXPECT_EQ(clip().encode("I'LL they've"), joined({"i", "'ll", "they", "'ve"}));
  EXPECT_EQ(clip().encode("'x"), joined({"'", "x"}));
  EXPECT_EQ(clip().encode("2024"), joined({"2", "0", "2", "4"}));
  EXPECT_EQ(clip().encode("cat,dog"), joined({"cat", ",", "dog"}));
  EXPECT_EQ(clip().encode("a1b"), joined({"a", "1", "b"}));
  EXPECT_EQ(clip().encode("?!..."), joined({"?!..."}));
  EXPECT_NE(clip().encode("a b"), clip().encode("ab")) << "a word's last symbol carries the mark";
}

TEST(ClipTokenizer, special_tokens_in_the_text_stand_for_their_ids) {
  const std::int32_t start = clip().start_id(), end = clip().end_id();
  EXPECT_THAT(clip().encode("<|startoftext|><|endoftext|>"), ElementsAre(start, end));
  Ids expected = joined({"a"});
  expected.push_back(end);
  const Ids last = joined({"b"});
  expected.insert(expected.end(), last.begin(), last.end());
  EXPECT_EQ(clip().encode("a<|endoftext|>b"), expected);
  // The start token is matched after lower-casing, the end token, which pads too, before: as transformers has it.
  EXPECT_THAT(clip().encode("<|StartOfText|>"), ElementsAre(start));
  EXPECT_EQ(clip().encode("<|EndOfText|>!!"), joined({"<|", "endoftext", "|>", "!!"}));
  EXPECT_EQ(clip("tokenizer_2").encode("wow!").back(), clip("tokenizer_2").pad_id());
  EXPECT_NE(clip().encode("wow!").back(), 0) << "only CLIP-G's padding is '!'";
}

TEST(ClipTokenizer, padded_rows_are_cut_behind_the_text_and_filled) {
  for (const char* folder : {"tokenizer", "tokenizer_2"}) {
    const ClipTokenizer& tokenizer = clip(folder);
    EXPECT_EQ(tokenizer.model_max_length(), 77);
    const Ids empty = tokenizer.encode_padded("", 77);
    ASSERT_EQ(empty.size(), 77u);
    EXPECT_EQ(empty[0], tokenizer.start_id());
    EXPECT_EQ(empty[1], tokenizer.end_id());
    EXPECT_EQ(empty[2], tokenizer.pad_id());
    EXPECT_EQ(empty[76], tokenizer.pad_id());

    std::string text;
    for (int i = 0; i < 75; ++i) text += "a ";
    const Ids full = tokenizer.encode_padded(text, 77), cut = tokenizer.encode_padded(text + "red house", 77);
    EXPECT_EQ(full[76], tokenizer.end_id()) << "75 tokens fit";
    EXPECT_EQ(cut, full);
    EXPECT_EQ(tokenizer.encode_padded("a", 2), (Ids{tokenizer.start_id(), tokenizer.end_id()}));
  }
}

TEST(ClipTokenizer, bytes_that_are_no_text_are_taken_as_replacement_characters) {
  EXPECT_EQ(clip().encode("a\xFFz"), clip().encode("a\uFFFDz"));
  EXPECT_EQ(clip().encode("\xE6\x97"), clip().encode("\uFFFD\uFFFD"));
  const Ids with_nul = clip().encode(std::string_view("a\0b", 3));
  EXPECT_EQ(with_nul, joined({"a", std::string_view("\0", 1), "b"}));
}

/// Quadratic merging would take hours here and end at the test's time limit.
TEST(ClipTokenizer, a_word_of_a_megabyte_is_encoded_whole) {
  constexpr std::size_t kBytes = 1 << 20;
  std::map<std::int32_t, std::string> token_of;
  const auto vocabulary = read_vocabulary(test::model_folder("tokenizer") / "vocab.json").value();
  for (const auto& [token, id] : vocabulary) token_of[id] = token;
  std::string word;
  for (std::size_t i = 0; word.size() < kBytes; ++i) word += static_cast<char>('a' + (i * i / 7 + i / 3) % 26);
  for (const std::string& text : {word, std::string(kBytes, 'z'), std::string(kBytes, '!')}) {
    std::string back;
    for (const std::int32_t id : clip().encode(text)) {
      ASSERT_TRUE(token_of.contains(id)) << id;
      back += token_of[id];
    }
    EXPECT_TRUE(back == text + "</w>");
  }
  std::string marks = "e";
  while (marks.size() < kBytes) marks += "\u0301\u0323";
  EXPECT_GT(clip().encode(marks).size(), kBytes / 8) << "one letter under half a million marks";
}

TEST(ClipTokenizer, broken_files_are_named) {
  struct Broken {
    std::string file;
    std::function<void(const test::FolderCopy&)> damage;
    std::string message;
  };
  const std::string vocabulary = test::read(test::model_folder("tokenizer") / "vocab.json");
  const auto writes = [](const std::string& file, const std::string& bytes) {
    return [file, bytes](const test::FolderCopy& folder) { folder.write(file, bytes); };
  };
  const std::vector<Broken> cases = {
      {"vocab.json", [](const auto& folder) { folder.remove("vocab.json"); }, "no such file"},
      {"vocab.json", writes("vocab.json", vocabulary.substr(0, vocabulary.size() / 2)), "not valid JSON"},
      {"vocab.json", writes("vocab.json", ""), "not valid JSON"},
      {"vocab.json", writes("vocab.json", "[1]"), "not a JSON object"},
      {"vocab.json", writes("vocab.json", R"({"a":-1})"), "not an id"},
      {"vocab.json", writes("vocab.json", R"({"a":1e9})"), "not an id"},
      {"vocab.json", writes("vocab.json", R"({"a":99999999})"), "not an id"},
      {"vocab.json", writes("vocab.json", "{}"), "<|startoftext|>"},
      {"vocab.json", writes("vocab.json", std::string(100, '[')), "not valid JSON"},
      {"merges.txt", [](const auto& folder) { folder.remove("merges.txt"); }, "no such file"},
      {"merges.txt", writes("merges.txt", "#version: 0.2\na b c\n"), "line 2 is not a pair"},
      {"merges.txt", writes("merges.txt", "#version: 0.2\nab\n"), "line 2 is not a pair"},
      {"merges.txt", writes("merges.txt", "#version: 0.2\nnever seen\n"), "vocab.json lacks"},
      {"tokenizer_config.json", [](const auto& folder) { folder.remove("tokenizer_config.json"); }, "no such file"},
      {"tokenizer_config.json", writes("tokenizer_config.json", "{}"), "model_max_length"},
      {"tokenizer_config.json", writes("tokenizer_config.json", R"({"model_max_length":1})"), "below 2"},
      {"special_tokens_map.json", writes("special_tokens_map.json", "null"), "not a JSON object"},
      {"special_tokens_map.json", writes("special_tokens_map.json", R"({"bos_token":7})"), "bos_token"},
  };
  for (const Broken& broken : cases) {
    const test::FolderCopy folder("tokenizer");
    broken.damage(folder);
    const auto loaded = ClipTokenizer::load(folder.path());
    ASSERT_FALSE(loaded.ok()) << broken.file << ": " << broken.message;
    EXPECT_THAT(loaded.status().to_string(), AllOf(HasSubstr(broken.file), HasSubstr(broken.message)));
    EXPECT_EQ(loaded.status().to_string().find('\n'), std::string::npos);
  }
}

TEST(ClipTokenizer, a_folder_that_names_no_role_is_named) {
  const test::FolderCopy folder("tokenizer");
  folder.write("special_tokens_map.json", "{}");
  folder.write("tokenizer_config.json", R"({"model_max_length":77,"bos_token":"<|startoftext|>"})");
  const auto loaded = ClipTokenizer::load(folder.path());
  EXPECT_THAT(loaded.status().to_string(), AllOf(HasSubstr(folder.path().string()), HasSubstr("eos_token")));
}

}  // namespace
}  // namespace octavo::text
