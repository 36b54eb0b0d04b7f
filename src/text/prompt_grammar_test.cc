#include "text/prompt_grammar.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <utility>

namespace octavo::text {
namespace {

/// "text*weight" of each segment, '|' before one that begins a chunk.
std::string read(std::string_view prompt, PromptSyntax syntax) {
  std::string shown, separator;
  for (const PromptSegment& segment : parse_prompt(prompt, syntax)) {
    shown += std::exchange(separator, ";");
    if (segment.begins_chunk) shown += "|";
    shown += segment.text;
    if (segment.weight != 1) shown += fmt::format("*{:.4g}", segment.weight);
  }
  return shown;
}
std::string a1111(std::string_view prompt) { return read(prompt, PromptSyntax::kA1111); }
std::string comfyui(std::string_view prompt) { return read(prompt, PromptSyntax::kComfyUi); }

TEST(PromptGrammar, plain_is_literal) {
  for (const char* prompt : {"", "a (b:1.3) [c] BREAK \\(d\\) <lora:x:1>", "((", "\\"}) {
    EXPECT_EQ(read(prompt, PromptSyntax::kPlain), prompt);
  }
}

TEST(PromptGrammar, a_prompt_without_special_characters_is_one_segment_of_weight_one) {
  const std::string prompt = "a photo of a cat, 8k: soft light -- caf\u00E9 \U0001F431, it's 50% <3\n breakfast";
  EXPECT_EQ(a1111(prompt), prompt);
  EXPECT_EQ(comfyui(prompt), prompt);
}

TEST(A1111Grammar, brackets_weigh_and_multiply_when_nested) {
  EXPECT_EQ(a1111("a (b) c"), "a ;b*1.1; c");
  EXPECT_EQ(a1111("a ((b)) c"), "a ;b*1.21; c");
  EXPECT_EQ(a1111("[a]"), "a*0.9091");
  EXPECT_EQ(a1111("([a])"), "a") << "1.1 times its inverse";
  EXPECT_EQ(a1111("(a:1.3)"), "a*1.3");
  EXPECT_EQ(a1111("(a: +.5 )"), "a*0.5");
  EXPECT_EQ(a1111("(a:-1)"), "a*-1");
  EXPECT_EQ(a1111("(a (b:2):3)"), "a *3;b*6");
  EXPECT_EQ(a1111("(a:b:1.3)"), "a:b*1.3");
  EXPECT_EQ(a1111("(a)(b)"), "ab*1.1") << "neighbours of one weight are one segment";
  EXPECT_EQ(a1111("()"), "");
  EXPECT_EQ(a1111("(description:1)"), "description");
}

TEST(A1111Grammar, brackets_without_a_partner) {
  EXPECT_EQ(a1111("a (b [c"), "a ;b *1.1;c");
  EXPECT_EQ(a1111("a) b] c:1.2)"), "a) b] c:1.2)");
  EXPECT_EQ(a1111("(a:1.2.3)"), "a:1.2.3*1.1") << "not a number: text";
  EXPECT_EQ(a1111("(a [b) c]"), "a *1.1;b; c*0.9091") << "kinds do not know of each other";
}

TEST(A1111Grammar, backslashes_make_brackets_text) {
  EXPECT_EQ(a1111("\\(a\\) \\[b\\] \\\\ \\x \\"), "(a) [b] \\ x ");
  EXPECT_EQ(a1111("(a\\):1.5)"), "a)*1.5");
}

TEST(A1111Grammar, break_begins_a_chunk) {
  EXPECT_EQ(a1111("a BREAK b"), "a;|b");
  EXPECT_EQ(a1111("a\nBREAK\n b, BREAK(c)"), "a;|b,;|;c*1.1");
  EXPECT_EQ(a1111("BREAK a BREAK BREAK b BREAK"), ";|a;|;|b;|");
  EXPECT_EQ(a1111("(a BREAK b:1.5)"), "a*1.5;|b*1.5") << "inside brackets too";
  for (const char* word : {"BREAKFAST", "UNBREAK", "BREAK_", "\u00C9BREAK", "BREAK\u0416", "break"}) {
    EXPECT_EQ(a1111(word), word);
  }
  EXPECT_EQ(a1111("a, BREAK\u3002b"), "a,;|\u3002b");
}

TEST(A1111Grammar, tags_of_networks_are_left_out) {
  EXPECT_EQ(a1111("a <lora:style_2:0.8>cat"), "a cat");
  EXPECT_EQ(a1111("<hypernet:x>"), "");
  EXPECT_EQ(a1111("a <b> <:c> <d:> <e:f"), "a <b> <:c> <d:> <e:f");
}

TEST(A1111Grammar, the_deepest_nesting_stays_finite_and_quick) {
  const std::string open(32'000, '('), mixed = [] {
    std::string text;
    for (int i = 0; i < 20'000; ++i) text += "(a[";
    return text;
  }();
  for (const std::string& prompt :
       {open + "a", open + "a" + std::string(32'000, ')'), mixed, std::string("(((a:1e9):1000000):1000000)")}) {
    for (const PromptSyntax syntax : {PromptSyntax::kA1111, PromptSyntax::kComfyUi}) {
      for (const PromptSegment& segment : parse_prompt(prompt, syntax)) {
        EXPECT_LE(segment.weight, kMostWeight);
        EXPECT_GE(segment.weight, -kMostWeight);
      }
    }
  }
}

TEST(ComfyUiGrammar, brackets_multiply_and_numbers_replace) {
  EXPECT_EQ(comfyui("a (b) c"), "a ;b*1.1; c");
  EXPECT_EQ(comfyui("((b))"), "b*1.21");
  EXPECT_EQ(comfyui("(a:1.3)"), "a*1.3");
  EXPECT_EQ(comfyui("(a (b:2) c:3)"), "a *3;b*2; c*3") << "the inner number is the weight";
  EXPECT_EQ(comfyui("(a (b):3)"), "a *3;b*3.3");
  EXPECT_EQ(comfyui("(a:b)"), "a:b*1.1");
  EXPECT_EQ(comfyui("(:1.3)"), ":1.3*1.1") << "nothing stands before the number";
  EXPECT_EQ(comfyui("(a: 1.5 )"), "a*1.5");
  EXPECT_EQ(comfyui("(a)(b)"), "a*1.1;b*1.1") << "segments are not joined";
}

TEST(ComfyUiGrammar, square_brackets_break_and_tags_are_text) {
  EXPECT_EQ(comfyui("[a] BREAK <lora:x:1>"), "[a] BREAK <lora:x:1>");
}

TEST(ComfyUiGrammar, brackets_without_a_partner_are_text) {
  EXPECT_EQ(comfyui("a (b"), "a ;(b");
  EXPECT_EQ(comfyui("a) (b) (c)"), "a) (b) (c)") << "nothing opens behind one that closes nothing";
  EXPECT_EQ(comfyui(""), "");
  EXPECT_EQ(comfyui("()"), "");
}

TEST(ComfyUiGrammar, backslashes_make_round_brackets_text) {
  EXPECT_EQ(comfyui("\\(a\\) (b\\):1.2) \\["), "(a) ;b)*1.2; \\[");
}

TEST(PromptGrammar, syntaxes_are_found_by_name) {
  EXPECT_EQ(find_prompt_syntax("plain"), PromptSyntax::kPlain);
  EXPECT_EQ(find_prompt_syntax("a1111"), PromptSyntax::kA1111);
  EXPECT_EQ(find_prompt_syntax("comfyui"), PromptSyntax::kComfyUi);
  EXPECT_EQ(find_prompt_syntax("A1111"), std::nullopt);
}

}  // namespace
}  // namespace octavo::text
