// Reading and writing files, against what tools/reference/record_images.py recorded from Pillow, and with hostile
// input.
#include "image/codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <filesystem>
#include <random>

#include "image/png.h"
#include "image/recorded.h"

namespace octavo::image {
namespace {

using testing::HasSubstr;

std::vector<std::uint8_t> bytes_of(std::string_view text) { return {text.begin(), text.end()}; }

std::string refusal(std::span<const std::uint8_t> bytes, const DecodeLimits& limits = {}) {
  const auto decoded = decode(bytes, "--init", limits);
  return decoded.ok() ? "accepted" : decoded.status().to_string();
}

TEST(Decode, gives_the_pixels_of_pillow) {
  for (const Recorded& each : recorded_table("expected", 1)) {
    const auto decoded = decode(recorded_file(each.words[0]), each.words[0]);
    ASSERT_TRUE(decoded.ok()) << decoded.status().to_string();
    EXPECT_EQ(largest_difference(*decoded, each.expected), 0) << each.words[0];
  }
}

TEST(Decode, headers_tell_format_and_upright_size) {
  for (const Recorded& each : recorded_table("expected", 1)) {
    const auto header = read_header(recorded_file(each.words[0]), each.words[0]);
    ASSERT_TRUE(header.ok()) << header.status().to_string();
    const std::string extension = std::filesystem::path(each.words[0]).extension();
    EXPECT_EQ(header->format, extension == ".png" ? "PNG" : extension == ".jpg" ? "JPEG" : "WebP");
    EXPECT_EQ(header->width, each.expected.width) << each.words[0];
    EXPECT_EQ(header->height, each.expected.height) << each.words[0];
  }
}

TEST(Decode, limits_hold_for_every_format) {
  for (const char* name : {"rgb.png", "orientation_6.jpg", "lossy_alpha.webp"}) {
    const auto bytes = recorded_file(name);
    EXPECT_TRUE(decode(bytes, name, {.max_file_bytes = bytes.size(), .max_pixels = 21 * 13, .max_side = 21}).ok());
    EXPECT_THAT(refusal(bytes, {.max_file_bytes = bytes.size() - 1}), HasSubstr("--init: has")) << name;
    EXPECT_THAT(refusal(bytes, {.max_pixels = 21 * 13 - 1}), HasSubstr("at most 272 pixels are accepted")) << name;
    EXPECT_THAT(refusal(bytes, {.max_side = 20}), HasSubstr("21x13; sides of at most 20")) << name;
    EXPECT_EQ(decode(bytes, name, {.max_side = 20}).status().code(), ErrorCode::kResourceExhausted);
  }
}

TEST(Decode, a_huge_header_is_refused_before_memory_is_taken) {
  // 2 147 483 647 x 1 pixels and 65 500 x 65 500, in files of a few hundred bytes.
  auto png = recorded_file("rgb.png");
  const std::vector<std::uint8_t> wide = {0x7F, 0xFF, 0xFF, 0xFF, 0, 0, 0, 1};
  std::copy(wide.begin(), wide.end(), png.begin() + 16);
  EXPECT_THAT(refusal(png), HasSubstr("2147483647x1; sides of at most 16384"));
  auto jpeg = recorded_file("full_colour.jpg");
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
    const auto bytes = recorded_file(name);
    for (std::size_t length = 0; length < bytes.size(); length += 1 + length / 64) {
      const std::string text = refusal(std::span(bytes).first(length));
      EXPECT_NE(text, "accepted") << name << " cut to " << length << " of " << bytes.size();
      EXPECT_EQ(text.rfind("--init: ", 0), 0u) << text;
      EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    }
  }
}

TEST(Decode, a_jpeg_of_endless_scans_is_refused) {
  const auto bytes = recorded_file("progressive.jpg");
  const std::vector<std::uint8_t> scan_mark = {0xFF, 0xDA}, table_mark = {0xFF, 0xC4};
  const auto scan = std::search(bytes.begin(), bytes.end(), scan_mark.begin(), scan_mark.end());
  const auto after = std::search(scan, bytes.end(), table_mark.begin(), table_mark.end());
  ASSERT_NE(after, bytes.end());
  auto endless = std::vector<std::uint8_t>(bytes.begin(), after);
  for (int i = 0; i < 100; ++i) endless.insert(endless.end(), scan, after);
  endless.insert(endless.end(), after, bytes.end());
  EXPECT_THAT(refusal(endless), HasSubstr("more than 100 scans"));
}

TEST(Decode, flipped_bits_never_crash_and_leave_a_whole_picture_or_a_refusal) {
  std::mt19937 random(5);
  for (const Recorded& each : recorded_table("expected", 1)) {
    const auto bytes = recorded_file(each.words[0]);
    for (int round = 0; round < 100; ++round) {
      auto broken = bytes;
      for (int flips = 0; flips < 3; ++flips) {
        broken[random() % broken.size()] ^= static_cast<std::uint8_t>(1u << (random() % 8));
      }
      const auto decoded = decode(broken, each.words[0], {.max_pixels = 1 << 20});
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
  EXPECT_THAT(refusal(recorded_file("animated.webp")), HasSubstr("--init: is an animated WebP"));
}

TEST(Decode, content_and_not_the_name_decides) {
  const auto webp = recorded_file("lossy.webp");
  EXPECT_EQ(format_of_content(std::span(webp).first(12)), "WebP");
  EXPECT_EQ(format_of_content(bytes_of("GIF89a")), std::nullopt);
  EXPECT_EQ(read_header(webp, "picture.png")->format, "WebP");
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

// ---- parameters ----

// As in record_images.py.
const std::string kParameters =
    "a caf\xC3\xA9 \xE2\x98\x95 and a \xF0\x9F\x90\xB1\nNegative prompt: blurry\nSteps: 28, Sampler: Euler, Seed: 1";

TEST(Parameters, are_read_from_every_format_as_others_write_them) {
  for (const char* name : {"parameters_text.png", "parameters_packed.png", "parameters.jpg",
                           "parameters_little_endian.jpg", "parameters_mixed.jpg", "parameters.webp"}) {
    const auto read = read_parameters(recorded_file(name), name);
    ASSERT_TRUE(read.ok()) << read.status().to_string();
    EXPECT_EQ(*read, kParameters) << name;
  }
  EXPECT_EQ(*read_parameters(recorded_file("parameters_latin1.png"), ""), kParameters.substr(0, 7));
}

TEST(Parameters, are_empty_where_there_are_none) {
  for (const char* name : {"rgb.png", "progressive.jpg", "orientation_6.jpg", "lossy.webp"}) {
    EXPECT_EQ(*read_parameters(recorded_file(name), name), "") << name;
  }
  EXPECT_FALSE(read_parameters(bytes_of("hello"), "x").ok());
}

TEST(Parameters, a_compressed_text_that_grows_without_end_is_left_out) {
  const std::vector<PngText> texts = {{"parameters", std::string(200, 'x')}};
  EXPECT_EQ(decode_png(*encode_png({1, 1, 1, {0}}, texts))->texts.size(), 1u);
  // 64 MiB of zeros, packed by zlib into 65 kB, as a zTXt chunk (written by hand below).
  std::vector<std::uint8_t> content = bytes_of(std::string_view("parameters\0\0", 12));
  std::vector<std::uint8_t> packed(1 << 18);
  uLongf size = packed.size();
  const std::vector<std::uint8_t> zeros(std::size_t{64} << 20);
  ASSERT_EQ(compress2(packed.data(), &size, zeros.data(), zeros.size(), 9), Z_OK);
  content.insert(content.end(), packed.begin(), packed.begin() + static_cast<std::ptrdiff_t>(size));
  std::vector<std::uint8_t> chunk = bytes_of("zTXt");
  chunk.insert(chunk.end(), content.begin(), content.end());
  const auto append_u32 = [](std::vector<std::uint8_t>& out, std::size_t value) {
    for (const int shift : {24, 16, 8, 0}) out.push_back(static_cast<std::uint8_t>(value >> shift));
  };
  std::vector<std::uint8_t> framed;
  append_u32(framed, content.size());
  framed.insert(framed.end(), chunk.begin(), chunk.end());
  append_u32(framed, crc32_z(0, chunk.data(), chunk.size()));
  auto bytes = recorded_file("rgb.png");
  bytes.insert(bytes.begin() + 33, framed.begin(), framed.end());
  EXPECT_TRUE(decode(bytes, "bomb").ok());
  EXPECT_EQ(*read_parameters(bytes, "bomb"), "");
}

// ---- encoding ----

TEST(Encode, names_choose_the_format) {
  EXPECT_EQ(format_of_name("a.png"), "PNG");
  EXPECT_EQ(format_of_name("dir.webp/a.JPG"), "JPEG");
  EXPECT_EQ(format_of_name("a.jpeg"), "JPEG");
  EXPECT_EQ(format_of_name("a.b.WebP"), "WebP");
  for (const char* name : {"a", "", "a.", "a.gif", "dir.png/a", "png"}) EXPECT_EQ(format_of_name(name), std::nullopt);
  EXPECT_EQ(known_extensions(), ".png, .jpg, .jpeg, .webp");
}

TEST(Encode, lossless_formats_give_the_picture_back_and_lossy_ones_something_near) {
  for (const char* name : {"rgb.png", "rgba.png"}) {
    const Image image = *decode(recorded_file(name), name);
    for (const bool webp : {false, true}) {
      EncodeOptions options{.lossless = webp, .parameters = kParameters};
      const auto bytes = encode(image, webp ? "WebP" : "PNG", options);
      ASSERT_TRUE(bytes.ok()) << bytes.status().to_string();
      EXPECT_EQ(largest_difference(*decode(*bytes, name), image), 0) << name << webp;
      EXPECT_EQ(*read_parameters(*bytes, name), kParameters);
    }
  }
  // A smooth picture: at a high quality no value moves far, at a low one the file is smaller.
  Image smooth{64, 48, 3, {}};
  for (int y = 0; y < smooth.height; ++y) {
    for (int x = 0; x < smooth.width; ++x) {
      for (const int value : {2 * x + y, 3 * y, 128}) smooth.pixels.push_back(static_cast<std::uint8_t>(value));
    }
  }
  for (const char* format : {"JPEG", "WebP"}) {
    const auto fine = *encode(smooth, format, {.quality = 95});
    EXPECT_LE(largest_difference(*decode(fine, format), smooth), 8) << format;
    EXPECT_LT(encode(smooth, format, {.quality = 5})->size(), fine.size()) << format;
    EXPECT_EQ(read_header(fine, format)->format, format);
    EXPECT_EQ(*read_parameters(fine, format), "");
    EXPECT_EQ(*read_parameters(*encode(smooth, format, {.parameters = kParameters}), format), kParameters);
  }
}

TEST(Encode, grey_pictures_are_written_by_every_format) {
  const Image grey{2, 1, 1, {40, 40}};
  for (const char* format : {"PNG", "JPEG", "WebP"}) {
    const Image read = *decode(*encode(grey, format, {}), format);
    EXPECT_LE(largest_difference(read, {2, 1, 3, std::vector<std::uint8_t>(6, 40)}), 2) << format;
  }
}

TEST(Encode, what_a_format_cannot_do_is_refused_by_the_name_of_the_field) {
  const Image image{1, 1, 3, {1, 2, 3}};
  const auto field = [&](const Image& picture, const char* format, const EncodeOptions& options) {
    const auto bytes = encode(picture, format, options);
    return bytes.ok() ? "accepted" : bytes.status().subject();
  };
  EXPECT_EQ(field(image, "PNG", {.quality = 90}), "quality");
  EXPECT_EQ(field(image, "JPEG", {.quality = 0}), "quality");
  EXPECT_EQ(field(image, "WebP", {.quality = 101}), "quality");
  EXPECT_EQ(field(image, "WebP", {.quality = 90, .lossless = true}), "quality");
  EXPECT_EQ(field(image, "JPEG", {.lossless = true}), "lossless");
  EXPECT_EQ(field(image, "PNG", {.lossless = true}), "accepted");
  EXPECT_EQ(field(image, "JPEG", {.parameters = "\xFF"}), "parameters");
  EXPECT_EQ(field(image, "JPEG", {.parameters = std::string(32737, 'x')}), "accepted");
  EXPECT_EQ(field(image, "JPEG", {.parameters = std::string(32738, 'x')}), "parameters");
  EXPECT_EQ(field(image, "WebP", {.parameters = std::string(100000, 'x')}), "accepted");
  EXPECT_EQ(field({1, 1, 4, {1, 2, 3, 4}}, "JPEG", {}), "image");
  EXPECT_EQ(field({16384, 1, 1, std::vector<std::uint8_t>(16384)}, "WebP", {}), "image");
  EXPECT_EQ(field({65501, 1, 1, std::vector<std::uint8_t>(65501)}, "JPEG", {}), "image");
}

}  // namespace
}  // namespace octavo::image
