#include "text/unicode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace octavo::text {
namespace {

using ::testing::ElementsAre;
using Points = std::vector<char32_t>;

Points nfc(std::u32string_view text) { return to_nfc(Points(text.begin(), text.end())); }
Points lower(std::u32string_view text) { return to_lower(Points(text.begin(), text.end())); }

std::string utf8(const Points& points) {
  std::string text;
  for (const char32_t point : points) append_utf8(text, point);
  return text;
}

TEST(DecodeUtf8, each_byte_that_is_not_utf8_becomes_one_replacement_character) {
  EXPECT_EQ(decode_utf8("aé日🐱"), (Points{U'a', 0xE9, 0x65E5, 0x1F431}));
  EXPECT_EQ(decode_utf8(std::string_view("a\0b", 3)), (Points{U'a', 0, U'b'}));
  EXPECT_EQ(decode_utf8("\xFF"), (Points{0xFFFD}));
  EXPECT_EQ(decode_utf8("a\xE6\x97"), (Points{U'a', 0xFFFD, 0xFFFD})) << "cut off";
  EXPECT_EQ(decode_utf8("\xC0\x80"), (Points{0xFFFD, 0xFFFD})) << "overlong";
  EXPECT_EQ(decode_utf8("\xED\xA0\x80"), (Points{0xFFFD, 0xFFFD, 0xFFFD})) << "a surrogate";
  EXPECT_EQ(decode_utf8("\xF4\x90\x80\x80").size(), 4u) << "beyond U+10FFFF";
  EXPECT_TRUE(decode_utf8("").empty());
}

TEST(AppendUtf8, writes_what_decode_reads) {
  for (const char32_t point : {0x00, 0x7F, 0x80, 0x7FF, 0x800, 0xFFFF, 0x10000, 0x10FFFF}) {
    const Points one{static_cast<char32_t>(point)};
    EXPECT_EQ(decode_utf8(utf8(one)), one);
  }
}

TEST(ToNfc, composes_reorders_and_keeps_exclusions_apart) {
  EXPECT_EQ(nfc(U"e\u0301"), (Points{0xE9}));
  EXPECT_EQ(nfc(U"a\u0301\u0323"), (Points{0x1EA1, 0x301})) << "the mark below comes first";
  EXPECT_EQ(nfc(U"\u212B"), (Points{0xC5})) << "the Angstrom sign";
  EXPECT_EQ(nfc(U"\u1112\u1161\u11AB"), (Points{0xD55C})) << "Hangul";
  EXPECT_EQ(nfc(U"\u0958"), (Points{0x915, 0x93C})) << "excluded from composition";
  EXPECT_EQ(nfc(U"\u1E9B\u0323"), (Points{0x1E9B, 0x323}));
  EXPECT_EQ(nfc(U"\uFB01"), (Points{0xFB01})) << "compatibility forms stay";
  EXPECT_EQ(nfc(U"plain"), (Points{U'p', U'l', U'a', U'i', U'n'}));
}

TEST(ToLower, maps_each_code_point_on_its_own) {
  EXPECT_EQ(lower(U"AbZ"), (Points{U'a', U'b', U'z'}));
  EXPECT_EQ(lower(U"ÄΩЖ"), (Points{0xE4, 0x3C9, 0x436}));
  EXPECT_EQ(lower(U"\u0130"), (Points{U'i', 0x307}));
  EXPECT_EQ(lower(U"ΟΔΟΣ").back(), 0x3C3u) << "no final sigma";
  EXPECT_EQ(lower(U"\u1E9E"), (Points{0xDF}));
  EXPECT_EQ(lower(U"\U00010400"), (Points{0x10428}));
}

TEST(Classes, letters_numbers_and_white_space) {
  for (const char32_t point : {0x61, 0xAA, 0x3B1, 0x5D0, 0x4E00, 0x2B0, 0x1D400})
    EXPECT_TRUE(is_letter(point)) << std::uint32_t{point};
  for (const char32_t point : {0x31, 0x2D, 0x301, 0x1F431, 0x5F, 0x0})
    EXPECT_FALSE(is_letter(point)) << std::uint32_t{point};
  for (const char32_t point : {0x30, 0xB2, 0xBD, 0x661, 0x2167, 0x3007})
    EXPECT_TRUE(is_number(point)) << std::uint32_t{point};
  EXPECT_FALSE(is_number(U'a'));
  for (const char32_t point : {0x09, 0x0D, 0x20, 0x85, 0xA0, 0x2003, 0x3000})
    EXPECT_TRUE(is_whitespace(point)) << std::uint32_t{point};
  for (const char32_t point : {0x1C, 0x180E, 0x200B, 0x2060, 0xFEFF})
    EXPECT_FALSE(is_whitespace(point)) << std::uint32_t{point};
}

TEST(SplitAtSpecialTokens, takes_the_leftmost_then_the_longest) {
  const std::vector<SpecialToken> tokens = {{"<a>", 1}, {"<a>>", 2}, {"!", 3}, {"", 4}};
  const auto ids_and_texts = [&](std::string_view text) {
    std::string shown;
    for (const TextPiece& piece : split_at_special_tokens(text, tokens)) {
      shown += "[" + std::string(piece.text) + ":" + std::to_string(piece.id) + "]";
    }
    return shown;
  };
  EXPECT_EQ(ids_and_texts("x<a>y!"), "[x:-1][<a>:1][y:-1][!:3]");
  EXPECT_EQ(ids_and_texts("<a>><a>"), "[<a>>:2][<a>:1]");
  EXPECT_EQ(ids_and_texts("<<a"), "[<<a:-1]");
  EXPECT_EQ(ids_and_texts(""), "");
}

}  // namespace
}  // namespace octavo::text
