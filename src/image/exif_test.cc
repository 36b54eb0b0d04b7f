#include "image/exif.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace octavo::image {
namespace {

/// A TIFF in either byte order: numbers are appended, the rest is written out.
class TiffBuilder {
 public:
  explicit TiffBuilder(bool big_endian) : big_endian_(big_endian) {
    bytes_.assign(2, big_endian ? 'M' : 'I');
    u16(42);
    u32(8);
  }
  TiffBuilder& u16(unsigned value) {
    const std::uint8_t high = static_cast<std::uint8_t>(value >> 8), low = static_cast<std::uint8_t>(value);
    bytes_.push_back(big_endian_ ? high : low);
    bytes_.push_back(big_endian_ ? low : high);
    return *this;
  }
  TiffBuilder& u32(unsigned value) {
    const unsigned high = value >> 16, low = value & 0xFFFF;
    return u16(big_endian_ ? high : low).u16(big_endian_ ? low : high);
  }
  TiffBuilder& field(unsigned tag, unsigned type, unsigned count, unsigned value) {
    return u16(tag).u16(type).u32(count).u32(value);
  }
  TiffBuilder& text(std::string_view text) {
    bytes_.insert(bytes_.end(), text.begin(), text.end());
    return *this;
  }
  const std::vector<std::uint8_t>& bytes() const { return bytes_; }

 private:
  bool big_endian_;
  std::vector<std::uint8_t> bytes_;
};

std::vector<std::uint8_t> with_orientation(bool big_endian, unsigned type, unsigned count, unsigned value) {
  TiffBuilder tiff(big_endian);
  tiff.u16(1).u16(0x0112).u16(type).u32(count);
  return tiff.u16(value).u16(0).u32(0).bytes();
}

std::vector<std::uint8_t> with_comment(bool big_endian, std::string_view comment, int length_error = 0) {
  TiffBuilder tiff(big_endian);
  constexpr unsigned kFolderAt = 8 + 2 + 12 + 4, kTextAt = kFolderAt + 2 + 12 + 4;
  tiff.u16(1).field(0x8769, 4, 1, kFolderAt).u32(0);
  tiff.u16(1).field(0x9286, 7, static_cast<unsigned>(static_cast<int>(comment.size()) + length_error), kTextAt).u32(0);
  return tiff.text(comment).bytes();
}

TEST(Exif, orientation_is_read_in_both_byte_orders) {
  for (const bool big_endian : {false, true}) {
    for (unsigned value = 1; value <= 8; ++value) {
      EXPECT_EQ(parse_exif(with_orientation(big_endian, 3, 1, value)).orientation, static_cast<int>(value));
    }
  }
}

TEST(Exif, an_orientation_that_makes_no_sense_is_none) {
  for (const unsigned value : {0u, 9u, 0xFFFFu}) {
    EXPECT_EQ(parse_exif(with_orientation(true, 3, 1, value)).orientation, 1) << value;
  }
  EXPECT_EQ(parse_exif(with_orientation(true, 3, 2, 6)).orientation, 1) << "two values";
  EXPECT_EQ(parse_exif(with_orientation(true, 2, 1, 6)).orientation, 1) << "a text";
}

TEST(Exif, comments_are_read_in_every_code) {
  using namespace std::string_view_literals;
  for (const bool big_endian : {false, true}) {
    const auto comment = [&](std::string_view text) { return parse_exif(with_comment(big_endian, text)).user_comment; };
    EXPECT_EQ(comment("UNICODE\0\0a\0 \x26\x3A\xD8\x3D\xDC\x31"sv), "a \xE2\x98\xBA\xF0\x9F\x90\xB1");
    EXPECT_EQ(comment("UNICODE\0\xFF\xFE\x3A\x26"sv), "\xE2\x98\xBA") << "little-endian by its mark";
    EXPECT_EQ(comment("UNICODE\0\xFE\xFF\x26\x3A"sv), "\xE2\x98\xBA") << "big-endian by its mark";
    EXPECT_EQ(comment("UNICODE\0\xD8\x3D\0x"sv), "\xEF\xBF\xBDx") << "half of a pair";
    EXPECT_EQ(comment("UNICODE\0\0a\0"sv), "a") << "half of a unit";
    EXPECT_EQ(comment("ASCII\0\0\0a cat\0\0"sv), "a cat");
    EXPECT_EQ(comment("\0\0\0\0\0\0\0\0caf\xC3\xA9"sv), "caf\xC3\xA9");
    EXPECT_EQ(comment("ASCII\0\0\0\xFF"sv), "");
    EXPECT_EQ(comment("JIS\0\0\0\0\0a"sv), "");
    EXPECT_EQ(comment("UNICODE\0"sv), "");
    EXPECT_EQ(comment("UNIC"sv), "");
  }
  EXPECT_EQ(parse_exif(with_comment(false, "UNICODE\0a\0 \0b\0"sv)).user_comment, "a b") << "little-endian";
  EXPECT_EQ(parse_exif(with_comment(true, "UNICODE\0a\0 \0"sv)).user_comment, "\xE6\x84\x80\xE2\x80\x80")
      << "a big-endian file holds big-endian text, whatever it looks like";
  EXPECT_EQ(parse_exif(with_comment(true, "ASCII\0\0\0a"sv, 1)).user_comment, "") << "beyond the end";
}

TEST(Exif, what_is_written_is_read) {
  for (const std::string text : {"a cat", "caf\xC3\xA9 \xE2\x98\xBA \xF0\x9F\x90\xB1\n\xF4\x8F\xBF\xBF", ""}) {
    EXPECT_EQ(parse_exif(write_exif(text)).user_comment, text);
    EXPECT_EQ(parse_exif(write_exif(text)).orientation, 1);
  }
}

TEST(Exif, every_truncation_and_flipped_bit_is_survived) {
  using namespace std::string_view_literals;
  const auto whole = with_comment(true, "UNICODE\0\0a\0b"sv);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    EXPECT_EQ(parse_exif(std::span(whole).first(length)).user_comment, "") << length;
  }
  std::mt19937 random(1);
  for (int round = 0; round < 5000; ++round) {
    auto broken = whole;
    for (int flips = 0; flips < 4; ++flips) {
      broken[random() % broken.size()] ^= static_cast<std::uint8_t>(1u << (random() % 8));
    }
    const Exif exif = parse_exif(broken);
    EXPECT_TRUE(exif.orientation >= 1 && exif.orientation <= 8);
  }
}

}  // namespace
}  // namespace octavo::image
