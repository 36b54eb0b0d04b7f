#include "base/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace octavo {
namespace {

std::string encode(std::uint32_t code_point) {
  std::string text;
  const auto put = [&text](std::uint32_t byte) { text += static_cast<char>(byte); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | (code_point >> 6));
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | (code_point >> 12));
    put(0x80 | ((code_point >> 6) & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | (code_point >> 18));
    put(0x80 | ((code_point >> 12) & 0x3F));
    put(0x80 | ((code_point >> 6) & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
  return text;
}

TEST(Utf8, every_scalar_value_is_valid_and_every_surrogate_is_not) {
  for (std::uint32_t code_point = 0; code_point <= 0x10FFFF; ++code_point) {
    const bool surrogate = code_point >= 0xD800 && code_point <= 0xDFFF;
    ASSERT_EQ(is_valid_utf8(encode(code_point)), !surrogate) << std::hex << code_point;
  }
  for (std::uint32_t code_point = 0x110000; code_point < 0x1FFFFF; code_point += 257) {
    ASSERT_FALSE(is_valid_utf8(encode(code_point))) << std::hex << code_point;
  }
}

/// Table 3-7 of the Unicode Standard, written as a predicate on exactly `size` bytes.
bool in_table(const unsigned char* b, int size) {
  const auto in = [](unsigned char byte, int low, int high) { return byte >= low && byte <= high; };
  switch (size) {
    case 1:
      return in(b[0], 0x00, 0x7F);
    case 2:
      return in(b[0], 0xC2, 0xDF) && in(b[1], 0x80, 0xBF);
    case 3:
      return in(b[2], 0x80, 0xBF) &&
             ((b[0] == 0xE0 && in(b[1], 0xA0, 0xBF)) || (in(b[0], 0xE1, 0xEC) && in(b[1], 0x80, 0xBF)) ||
              (b[0] == 0xED && in(b[1], 0x80, 0x9F)) || (in(b[0], 0xEE, 0xEF) && in(b[1], 0x80, 0xBF)));
    default:
      return false;
  }
}

TEST(Utf8, every_one_two_and_three_byte_string_agrees_with_the_standards_table) {
  const auto whole = [](const unsigned char* b, int size) {  // cut into characters in every possible way
    bool good[4] = {true, false, false, false};
    for (int end = 1; end <= size; ++end) {
      for (int length = 1; length <= end; ++length) {
        good[end] = good[end] || (good[end - length] && in_table(b + end - length, length));
      }
    }
    return good[size];
  };
  unsigned char b[3];
  const auto check = [&](int size) {
    return is_valid_utf8({reinterpret_cast<const char*>(b), static_cast<std::size_t>(size)}) == whole(b, size);
  };
  for (int x = 0; x < 256; ++x) {
    b[0] = static_cast<unsigned char>(x);
    ASSERT_TRUE(check(1)) << x;
    for (int y = 0; y < 256; ++y) {
      b[1] = static_cast<unsigned char>(y);
      ASSERT_TRUE(check(2)) << x << " " << y;
      for (const int z : {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xE0, 0xF0, 0xFF}) {
        b[2] = static_cast<unsigned char>(z);
        ASSERT_TRUE(check(3)) << x << " " << y << " " << z;
      }
    }
  }
}

TEST(Utf8, overlong_cut_and_stray_bytes_are_refused_anywhere_in_a_text) {
  for (const char* wrong : {"\xC0\xAF", "\xC1\xBF", "\xE0\x80\xAF", "\xE0\x9F\xBF", "\xF0\x80\x80\xAF",
                            "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFE", "\xFF", "\x80", "\xBF",
                            "\xE2\x82", "\xF0\x9F\x90", "\xC3", "\xED\xA0\x80", "\xF0\x9F\x90\x41"}) {
    EXPECT_FALSE(is_valid_utf8(wrong)) << wrong;
    EXPECT_FALSE(is_valid_utf8(std::string("a cat ") + wrong + " in the snow")) << wrong;
    EXPECT_FALSE(is_valid_utf8(std::string("caf\xC3\xA9 ") + wrong)) << wrong;
  }
  EXPECT_TRUE(is_valid_utf8(""));
  EXPECT_TRUE(is_valid_utf8(std::string_view("a\0b", 3)));
  EXPECT_TRUE(is_valid_utf8("caf\xC3\xA9 \xE6\x97\xA5\xE6\x9C\xAC \xF0\x9F\x90\xB1"));
}

TEST(Utf8, what_is_none_is_made_printable_and_what_is_stays) {
  EXPECT_EQ(printable("caf\xC3\xA9.safetensors"), "caf\xC3\xA9.safetensors");
  EXPECT_EQ(printable("mod\xE9le"), "mod?le");
  EXPECT_EQ(printable("\xC3\xA9 \xFF"), "?? ?");
}

}  // namespace
}  // namespace octavo
