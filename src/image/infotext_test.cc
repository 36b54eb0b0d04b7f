#include "image/infotext.h"

#include <gtest/gtest.h>

namespace octavo::image {
namespace {

const std::vector<InfotextItem> kItems = {{"Steps", "28"},      {"Sampler", "Euler"}, {"Schedule type", "Normal"},
                                          {"CFG scale", "4.5"}, {"Seed", "1234"},     {"Size", "1024x1024"}};

TEST(Infotext, is_written_as_a1111_writes_it) {
  EXPECT_EQ(format_infotext({"a cat", "blurry", kItems}),
            "a cat\nNegative prompt: blurry\n"
            "Steps: 28, Sampler: Euler, Schedule type: Normal, CFG scale: 4.5, Seed: 1234, Size: 1024x1024");
}

TEST(Infotext, leaves_out_an_empty_negative_prompt_and_strips_the_ends) {
  EXPECT_EQ(format_infotext({"  a cat", "", {{"Steps", "1"}}}), "a cat\nSteps: 1");
  EXPECT_EQ(format_infotext({"", "", {{"Steps", "1"}}}), "Steps: 1");
}

TEST(Infotext, quotes_values_with_commas_colons_and_newlines_only) {
  EXPECT_EQ(quote_infotext_value("plain \"inner\" quotes"), "plain \"inner\" quotes");
  EXPECT_EQ(quote_infotext_value("a, b"), "\"a, b\"");
  EXPECT_EQ(quote_infotext_value("key: \"v\"\nnext\\"), "\"key: \\\"v\\\"\\nnext\\\\\"");
  EXPECT_EQ(quote_infotext_value("caf\xC3\xA9: x"), "\"caf\xC3\xA9: x\"");
}

TEST(Infotext, writes_only_the_key_when_it_equals_the_value) {
  EXPECT_EQ(format_infotext({"p", "", {{"Tiling", "Tiling"}, {"Steps", "2"}}}), "p\nTiling, Steps: 2");
}

TEST(Infotext, round_trips) {
  std::vector<InfotextItem> items = kItems;
  items.push_back({"Note", "has, commas: and \"quotes\" and \\ and\nlines\x01"});
  items.push_back({"Version", "0.1.0"});
  for (const char* prompt :
       {"a cat", "two\nlines", "", "Steps: 3, not: the, last: line", "\xF0\x9F\x90\xB1 caf\xC3\xA9"}) {
    for (const char* negative : {"", "blurry", "low\nquality, Seed: 3"}) {
      const Infotext infotext{prompt, negative, items};
      EXPECT_EQ(parse_infotext(format_infotext(infotext)), infotext) << prompt << "/" << negative;
    }
  }
}

TEST(Infotext, text_without_items_is_the_prompt) {
  EXPECT_EQ(parse_infotext("just: a, prompt: here").prompt, "just: a, prompt: here");
  EXPECT_TRUE(parse_infotext("").items.empty());
}

TEST(Infotext, survives_broken_text) {
  for (const char* text :
       {":::", "a: \"", "a: \"\\", "a: \"\\u12\", b: 2, c: 3", "a:,b:,c:", "x: \"\\ud800\", y: 1, z: 2", "\n\n"}) {
    parse_infotext(text);
  }
  const Infotext infotext = parse_infotext("aa: \"\\u00e9\", bb: 2, cc: 3");
  EXPECT_EQ(infotext.items.at(0).value, "\xC3\xA9");
}

TEST(PythonFloat, prints_as_python_does) {
  EXPECT_EQ(python_float(7), "7.0");
  EXPECT_EQ(python_float(0.35), "0.35");
  EXPECT_EQ(python_float(1e-5), "1e-05");
  EXPECT_EQ(python_float(1e16), "1e+16");
  EXPECT_EQ(python_float(123456789.0), "123456789.0");
  EXPECT_EQ(python_float(0.1 + 0.2), "0.30000000000000004");
  EXPECT_EQ(python_float(-0.0), "-0.0");
}

}  // namespace
}  // namespace octavo::image
