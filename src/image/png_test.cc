#include "image/png.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "image/flat.h"

namespace octavo::image {
namespace {

Image noise_picture(int width, int height, int channels) {
  std::mt19937 random(7);
  Image image{width, height, channels, {}};
  image.pixels.resize(image.byte_count());
  for (std::uint8_t& value : image.pixels) value = static_cast<std::uint8_t>(random());
  return image;
}

bool contains(const std::vector<std::uint8_t>& bytes, std::string_view part) {
  return std::search(bytes.begin(), bytes.end(), part.begin(), part.end(),
                     [](std::uint8_t a, char b) { return a == static_cast<std::uint8_t>(b); }) != bytes.end();
}

TEST(Png, round_trips_pixels_of_every_channel_count_and_level) {
  for (const int channels : {1, 3, 4}) {
    for (const int level : {0, 1, 6, 9}) {
      const Image image = noise_picture(33, 17, channels);
      const auto bytes = encode_png(image, {}, {.compression_level = level});
      ASSERT_TRUE(bytes.ok());
      const auto decoded = decode_png(*bytes);
      ASSERT_TRUE(decoded.ok()) << decoded.status().to_string();
      EXPECT_EQ(decoded->image.channels, channels);
      EXPECT_EQ(decoded->image.width, 33);
      EXPECT_EQ(decoded->image.height, 17);
      EXPECT_EQ(decoded->image.pixels, image.pixels);
    }
  }
}

TEST(Png, latin1_text_goes_to_text_and_other_text_to_itxt) {
  const Image image = noise_picture(4, 4, 3);
  const std::vector<PngText> latin1 = {{"parameters", "caf\xC3\xA9\nSteps: 2"}};
  const auto first = encode_png(image, latin1);
  EXPECT_TRUE(contains(*first, std::string_view("tEXtparameters\0caf\xE9\nSteps: 2", 27)));
  EXPECT_FALSE(contains(*first, "iTXt"));
  EXPECT_EQ(decode_png(*first)->texts.at(0).text, latin1[0].text);

  const std::vector<PngText> emoji = {{"parameters", "\xF0\x9F\x90\xB1 caf\xC3\xA9"}};
  const auto second = encode_png(image, emoji);
  EXPECT_TRUE(contains(*second, std::string_view("iTXtparameters\0\0\0\0\0\xF0\x9F\x90\xB1 caf\xC3\xA9", 29)));
  EXPECT_FALSE(contains(*second, "tEXt"));
  EXPECT_EQ(decode_png(*second)->texts.at(0).keyword, "parameters");
  EXPECT_EQ(decode_png(*second)->texts.at(0).text, emoji[0].text);
}

TEST(Png, long_and_empty_texts_survive) {
  const Image image = noise_picture(4, 4, 3);
  const std::vector<PngText> texts = {{"parameters", std::string(200000, 'x')}, {"empty", ""}, {"control", "\x01\x7F"}};
  const auto decoded = decode_png(*encode_png(image, texts));
  ASSERT_EQ(decoded->texts.size(), 3u);
  for (std::size_t i = 0; i < texts.size(); ++i) EXPECT_EQ(decoded->texts[i].text, texts[i].text);
}

TEST(Png, text_that_cannot_be_stored_is_refused) {
  const Image image = noise_picture(4, 4, 3);
  const std::vector<PngText> invalid = {{"parameters", "\xFF"}};
  const std::vector<PngText> nul = {{"parameters", std::string("a\0b", 3)}};
  EXPECT_EQ(encode_png(image, invalid).status().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(encode_png(image, nul).status().code(), ErrorCode::kInvalidArgument);
}

TEST(Png, a_picture_whose_size_does_not_match_its_pixels_is_a_programmers_error) {
  Image image = noise_picture(4, 4, 3);
  image.pixels.pop_back();
  EXPECT_THROW((void)encode_png(image), CheckFailure);
}

TEST(Png, every_truncation_is_refused) {
  const auto bytes = *encode_png(noise_picture(16, 16, 3));
  for (std::size_t length = 0; length + 12 < bytes.size(); length += 5) {
    EXPECT_FALSE(decode_png(std::span(bytes).first(length)).ok()) << length;
  }
}

TEST(Png, flipped_bytes_never_crash) {
  const auto bytes = *encode_png(noise_picture(16, 16, 4), std::vector<PngText>{{"parameters", "x"}});
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    auto broken = bytes;
    broken[random() % broken.size()] ^= static_cast<std::uint8_t>(1u << (random() % 8));
    (void)decode_png(broken);
  }
}

TEST(Png, the_pixel_limit_is_checked_from_the_header) {
  const auto bytes = *encode_png(noise_picture(16, 16, 3));
  EXPECT_EQ(decode_png(bytes, 255).status().code(), ErrorCode::kResourceExhausted);
  EXPECT_TRUE(decode_png(bytes, 256).ok());
}

TEST(Flat, finds_pictures_of_one_colour) {
  Image image{2, 2, 3, {1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3}};
  EXPECT_TRUE(is_flat(image));
  image.pixels[11] = 4;
  EXPECT_FALSE(is_flat(image));
  EXPECT_TRUE(is_flat(Image{}));
}

}  // namespace
}  // namespace octavo::image
