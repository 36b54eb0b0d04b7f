#include "text/prompt_tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/test_folder.h"

namespace octavo::text {
namespace {

using ::testing::Each;
using Ids = std::vector<std::int32_t>;

const ClipTokenizer& clip() {
  static const ClipTokenizer tokenizer = ClipTokenizer::load(test::model_folder("tokenizer_2")).value();
  return tokenizer;
}
const T5Tokenizer& t5() {
  static const T5Tokenizer tokenizer = T5Tokenizer::load(test::model_folder("tokenizer_3")).value();
  return tokenizer;
}

std::vector<WeightedIds> chunks(const std::string& prompt, PromptSyntax syntax) {
  return clip_chunks(clip(), parse_prompt(prompt, syntax), syntax);
}

std::string times(const std::string& text, int count) {
  std::string all;
  for (int i = 0; i < count; ++i) all += text;
  return all;
}

/// Tokens between start and end.
std::size_t filled(const WeightedIds& chunk) {
  return static_cast<std::size_t>(std::find(chunk.ids.begin() + 1, chunk.ids.end(), clip().end_id()) -
                                  chunk.ids.begin()) -
         1;
}

TEST(ClipChunks, short_prompts_are_the_tokenizers_padded_row_in_every_syntax) {
  for (const PromptSyntax syntax : {PromptSyntax::kPlain, PromptSyntax::kA1111, PromptSyntax::kComfyUi}) {
    for (const std::string& prompt : {std::string("a red apple, on a tree"), std::string(), times("a ", 75)}) {
      const auto found = chunks(prompt, syntax);
      ASSERT_EQ(found.size(), 1u);
      EXPECT_EQ(found[0].ids, clip().encode_padded(prompt, 77));
      EXPECT_THAT(found[0].weights, Each(1.0f));
      EXPECT_FALSE(found[0].weighted());
    }
  }
  EXPECT_EQ(empty_clip_chunk(clip()).ids, clip().encode_padded("", 77));
}

TEST(ClipChunks, plain_is_cut_and_the_others_go_on) {
  const std::string prompt = times("a ", 160);
  EXPECT_EQ(chunks(prompt, PromptSyntax::kPlain).size(), 1u);
  for (const PromptSyntax syntax : {PromptSyntax::kA1111, PromptSyntax::kComfyUi}) {
    const auto found = chunks(prompt, syntax);
    ASSERT_EQ(found.size(), 3u);
    EXPECT_EQ(filled(found[0]), 75u);
    EXPECT_EQ(filled(found[1]), 75u);
    EXPECT_EQ(filled(found[2]), 10u);
    for (const WeightedIds& chunk : found) {
      EXPECT_EQ(chunk.ids.size(), 77u);
      EXPECT_EQ(chunk.ids.front(), clip().start_id());
    }
  }
}

TEST(ClipChunks, a1111_cuts_behind_the_last_comma_of_the_last_twenty_tokens) {
  EXPECT_EQ(filled(chunks(times("a ", 55) + ", " + times("a ", 40), PromptSyntax::kA1111)[0]), 56u);
  EXPECT_EQ(filled(chunks(times("a ", 54) + ", " + times("a ", 40), PromptSyntax::kA1111)[0]), 75u) << "too far back";
  EXPECT_EQ(filled(chunks(times("a ", 75) + ", b", PromptSyntax::kA1111)[0]), 75u) << "the comma itself overflows";
  EXPECT_EQ(filled(chunks(times("a ", 74) + ", b", PromptSyntax::kA1111)[0]), 75u) << "the comma is last";
  const auto moved = chunks(times("a ", 60) + ", " + times("(a:1.5) ", 1) + times("b ", 20), PromptSyntax::kA1111);
  ASSERT_EQ(moved.size(), 2u);
  EXPECT_EQ(moved[1].weights[1], 1.5f) << "weights move along";
  EXPECT_FALSE(moved[0].weighted());
}

TEST(ClipChunks, break_ends_a_chunk) {
  const auto found = chunks("a cat BREAK a (dog:0.5) BREAK", PromptSyntax::kA1111);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].ids, clip().encode_padded("a cat", 77));
  EXPECT_EQ(found[1].ids, clip().encode_padded("a dog", 77));
  EXPECT_EQ(found[1].weights[1], 1.0f);
  EXPECT_EQ(found[1].weights[2], 0.5f);
  EXPECT_EQ(found[1].weights[filled(found[1]) + 1], 1.0f) << "the end token";
  EXPECT_EQ(chunks("BREAK a BREAK BREAK b", PromptSyntax::kA1111).size(), 4u) << "empty ones count";
  EXPECT_EQ(chunks("BREAK", PromptSyntax::kA1111).size(), 1u);
}

TEST(ClipChunks, comfyui_moves_short_segments_whole) {
  EXPECT_EQ(filled(chunks(times("a ", 72) + "(b c d e)", PromptSyntax::kComfyUi)[0]), 72u);
  EXPECT_EQ(filled(chunks(times("a ", 72) + "(b c d)", PromptSyntax::kComfyUi)[0]), 75u);
  EXPECT_EQ(filled(chunks(times("a ", 72) + "(b c d e f g h i j k)", PromptSyntax::kComfyUi)[0]), 75u) << "long: split";
}

TEST(T5Ids, segments_are_joined_weighted_and_fitted) {
  const auto segments = parse_prompt("a (cat:1.5) BREAK b", PromptSyntax::kA1111);
  const WeightedIds ids = t5_ids(t5(), segments);
  Ids expected = t5().encode("a ");
  const std::size_t first = expected.size();
  for (const char* text : {"cat", "b"}) {
    const Ids part = t5().encode(text);
    expected.insert(expected.end(), part.begin(), part.end());
  }
  expected.push_back(1);
  EXPECT_EQ(ids.ids, expected);
  EXPECT_EQ(ids.weights[first], 1.5f);
  EXPECT_EQ(ids.weights.back(), 1.0f);

  const WeightedIds padded = fit_t5(t5(), ids, 77), cut = fit_t5(t5(), ids, 3);
  EXPECT_EQ(padded.ids.size(), 77u);
  EXPECT_EQ(padded.ids.back(), 0);
  EXPECT_EQ(cut.ids, (Ids{expected[0], expected[1], 1}));
  EXPECT_EQ(cut.weights.back(), 1.0f);
  for (const int length : {1, 77}) {
    EXPECT_EQ(fit_t5(t5(), t5_ids(t5(), parse_prompt("three red cats", PromptSyntax::kPlain)), length).ids,
              t5().encode_padded("three red cats", length));
  }
}

}  // namespace
}  // namespace octavo::text
