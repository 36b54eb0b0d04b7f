// Decoding, against what tools/reference/record_images.py recorded from Pillow, and with hostile input.
#include "image/codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "image/png.h"

namespace octavo::image {
namespace {

using testing::HasSubstr;

const std::filesystem::path kFixtures = OCTAVO_SOURCE_DIR "/tests/parity/fixtures/images";

std::vector<std::uint8_t> read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  OCTAVO_CHECK(file.good(), "{} cannot be read", path.string());
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::uint8_t> fixture(const std::string& name) { return read_file(kFixtures / name); }

struct Recorded {
  std::string name;
  Image expected;
};

std::vector<Recorded> recorded_pictures() {
  std::ifstream lines(kFixtures / "expected.txt");
  const auto raw = fixture("expected.raw");
  std::vector<Recorded> pictures;
  std::size_t at = 0;
  for (Recorded each; lines >> each.name >> each.expected.width >> each.expected.height >> each.expected.channels;) {
    const std::size_t size = each.expected.byte_count();
    OCTAVO_CHECK(at + size <= raw.size(), "expected.raw is too short");
    each.expected.pixels.assign(raw.begin() + static_cast<long>(at), raw.begin() + static_cast<long>(at + size));
    at += size;
    pictures.push_back(each);
  }
  OCTAVO_CHECK(at == raw.size() && pictures.size() > 40, "expected.txt and expected.raw disagree");
  return pictures;
}

std::vector<std::uint8_t> bytes_of(std::string_view text) { return {text.begin(), text.end()}; }

std::string refusal(std::span<const std::uint8_t> bytes, const DecodeLimits& limits = {}) {
  const auto decoded = decode(bytes, "--init", limits);
  return decoded.ok() ? "accepted" : decoded.status().to_string();
}

TEST(Decode, gives_the_pixels_of_pillow) {
  for (const Recorded& each : recorded_pictures()) {
    const auto decoded = decode(fixture(each.name), each.name);
    ASSERT_TRUE(decoded.ok()) << decoded.status().to_string();
    EXPECT_EQ(decoded->width, each.expected.width) << each.name;
    EXPECT_EQ(decoded->height, each.expected.height) << each.name;
    ASSERT_EQ(decoded->channels, each.expected.channels) << each.name;
    int worst = 0;
    for (std::size_t i = 0; i < each.expected.pixels.size(); ++i) {
      worst = std::max(worst, std::abs(decoded->pixels[i] - each.expected.pixels[i]));
    }
    EXPECT_EQ(worst, 0) << each.name;
  }
}

TEST(Decode, headers_tell_format_and_upright_size) {
  for (const Recorded& each : recorded_pictures()) {
    const auto header = read_header(fixture(each.name), each.name);
    ASSERT_TRUE(header.ok()) << header.status().to_string();
    const std::string extension = std::filesystem::path(each.name).extension();
    EXPECT_EQ(header->format, extension == ".png" ? "PNG" : extension == ".jpg" ? "JPEG" : "WebP");
    EXPECT_EQ(header->width, each.expected.width) << each.name;
    EXPECT_EQ(header->height, each.expected.height) << each.name;
  }
}

TEST(Decode, limits_hold_for_every_format) {
  for (const char* name : {"rgb.png", "orientation_6.jpg", "lossy_alpha.webp"}) {
    const auto bytes = fixture(name);
    EXPECT_TRUE(decode(bytes, name, {.max_file_bytes = bytes.size(), .max_pixels = 21 * 13, .max_side = 21}).ok());
    EXPECT_THAT(refusal(bytes, {.max_file_bytes = bytes.size() - 1}), HasSubstr("--init: has")) << name;
    EXPECT_THAT(refusal(bytes, {.max_pixels = 21 * 13 - 1}), HasSubstr("at most 272 pixels are accepted")) << name;
    EXPECT_THAT(refusal(bytes, {.max_side = 20}), HasSubstr("21x13; sides of at most 20")) << name;
    EXPECT_EQ(decode(bytes, name, {.max_side = 20}).status().code(), ErrorCode::kResourceExhausted);
  }
}

TEST(Decode, a_huge_header_is_refused_before_memory_is_taken) {
  // 2 147 483 647 x 1 pixels and 65 500 x 65 500, in files of a few hundred bytes.
  auto png = fixture("rgb.png");
  const std::vector<std::uint8_t> wide = {0x7F, 0xFF, 0xFF, 0xFF, 0, 0, 0, 1};
  std::copy(wide.begin(), wide.end(), png.begin() + 16);
  EXPECT_THAT(refusal(png), HasSubstr("2147483647x1; sides of at most 16384"));
  auto jpeg = fixture("full_colour.jpg");
  const std::vector<std::uint8_t> frame = {0xFF, 0xC0};
  const auto at = std::search(jpeg.begin(), jpeg.end(), frame.begin(), frame.end());
  ASSERT_NE(at, jpeg.end());
  const std::vector<std::uint8_t> sides = {0xFF, 0xDC, 0xFF, 0xDC};
  std::copy(sides.begin(), sides.end(), at + 5);
  EXPECT_THAT(refusal(jpeg), HasSubstr("65500x65500; sides of at most 16384"));
  EXPECT_THAT(refusal(jpeg, {.max_side = 65535}), HasSubstr("at most 67108864 pixels"));
}

TEST(Decode, files_that_end_early_are_refused_with_one_line) {
  for (const char* name : {"rgb.png", "interlaced_rgb.png", "full_colour.jpg", "progressive.jpg", "cmyk.jpg",
                           "lossy.webp", "lossless.webp", "lossy_alpha.webp"}) {
    const auto bytes = fixture(name);
    for (std::size_t length = 0; length < bytes.size(); length += 1 + length / 64) {
      const std::string text = refusal(std::span(bytes).first(length));
      EXPECT_NE(text, "accepted") << name << " cut to " << length << " of " << bytes.size();
      EXPECT_EQ(text.rfind("--init: ", 0), 0u) << text;
      EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    }
  }
}

TEST(Decode, flipped_bits_never_crash_and_leave_a_whole_picture_or_a_refusal) {
  std::mt19937 random(5);
  for (const Recorded& each : recorded_pictures()) {
    const auto bytes = fixture(each.name);
    for (int round = 0; round < 100; ++round) {
      auto broken = bytes;
      for (int flips = 0; flips < 3; ++flips) {
        broken[random() % broken.size()] ^= static_cast<std::uint8_t>(1u << (random() % 8));
      }
      const auto decoded = decode(broken, each.name, {.max_pixels = 1 << 20});
      ASSERT_TRUE(!decoded.ok() || decoded->pixels.size() == decoded->byte_count());
    }
  }
}

TEST(Decode, other_kinds_are_named) {
  EXPECT_THAT(refusal({}), HasSubstr("is empty"));
  EXPECT_THAT(refusal(bytes_of("GIF89a")), HasSubstr("is a GIF: convert it"));
  EXPECT_THAT(refusal(bytes_of(std::string_view("II*\0\x08", 5))), HasSubstr("is a TIFF"));
  EXPECT_THAT(refusal(bytes_of(std::string_view("\0\0\0\x20"
                                                "ftypavif",
                                                12))),
              HasSubstr("is an AVIF"));
  EXPECT_THAT(refusal(bytes_of("<!DOCTYPE html>")), HasSubstr("text (HTML"));
  EXPECT_THAT(refusal(bytes_of("hello")), HasSubstr("is not a picture: PNG, JPEG and WebP are read"));
  EXPECT_EQ(decode(bytes_of("hello"), "").status().code(), ErrorCode::kInvalidArgument);
}

TEST(Decode, an_animated_webp_is_refused) {
  EXPECT_THAT(refusal(fixture("animated.webp")), HasSubstr("--init: is an animated WebP"));
}

TEST(Decode, content_and_not_the_name_decides) {
  EXPECT_EQ(read_header(fixture("lossy.webp"), "picture.png")->format, "WebP");
}

TEST(Decode, a_damaged_text_does_not_spoil_a_png) {
  const Image image{1, 1, 3, {1, 2, 3}};
  auto bytes = *encode_png(image, std::vector<PngText>{{"parameters", "a cat"}});
  const std::string_view word = "a cat";
  *std::search(bytes.begin(), bytes.end(), word.begin(), word.end()) = 'b';
  const auto decoded = decode_png(bytes);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->image.pixels, image.pixels);
  EXPECT_TRUE(decoded->texts.empty());
}

}  // namespace
}  // namespace octavo::image
