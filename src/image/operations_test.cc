// Resizing, masks and compositing, against what tools/reference/record_images.py recorded from Pillow and OpenCV.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "image/codec.h"
#include "image/mask.h"
#include "image/recorded.h"
#include "image/resize.h"

namespace octavo::image {
namespace {

Image load(const std::string& name) { return *decode(recorded_file(name), name); }

const std::vector<Recorded>& operations() {
  static const auto rows = recorded_table("operations", 4);
  return rows;
}

/// The pictures of one operation, checked to be there.
template <typename Function>
void for_each(const std::string& prefix, std::size_t count, const Function& check) {
  std::size_t found = 0;
  for (const Recorded& row : operations()) {
    if (row.words[0].rfind(prefix, 0) != 0) continue;
    ++found;
    check(row);
  }
  EXPECT_EQ(found, count) << prefix;
}

std::string name_of(const Recorded& row) {
  return row.words[0] + " " + row.words[1] + " " + row.words[2] + " " + row.words[3];
}

TEST(Resize, equals_pillow_for_every_filter) {
  const std::map<std::string, ResizeFilter> filters = {{"resize_box", ResizeFilter::kBox},
                                                       {"resize_bilinear", ResizeFilter::kBilinear},
                                                       {"resize_bicubic", ResizeFilter::kBicubic},
                                                       {"resize_lanczos", ResizeFilter::kLanczos}};
  for_each("resize_", 32, [&](const Recorded& row) {
    Image image = load(row.words[1]);
    if (row.words[1] == "mask.png") image = luminance(image);
    const Image out = resize(image, row.expected.width, row.expected.height, filters.at(row.words[0]));
    EXPECT_EQ(largest_difference(out, row.expected), 0) << name_of(row);
  });
}

TEST(Resize, a_constant_picture_stays_constant) {
  for (const int value : {0, 1, 127, 254, 255}) {
    const Image image{37, 5, 3, std::vector<std::uint8_t>(37 * 5 * 3, static_cast<std::uint8_t>(value))};
    for (const auto filter :
         {ResizeFilter::kBox, ResizeFilter::kBilinear, ResizeFilter::kBicubic, ResizeFilter::kLanczos}) {
      const Image out = resize(image, 16, 64, filter);
      for (const std::uint8_t each : out.pixels) ASSERT_EQ(each, value);
    }
  }
}

TEST(Resize, the_colour_of_what_cannot_be_seen_does_not_bleed) {
  Image image{8, 1, 4, {}};
  for (int x = 0; x < 8; ++x) {
    const std::uint8_t hidden = x < 4 ? 0 : 255;  // green where it is opaque, red where it is not
    image.pixels.insert(image.pixels.end(),
                        {hidden, static_cast<std::uint8_t>(255 - hidden), 0, static_cast<std::uint8_t>(255 - hidden)});
  }
  const Image out = resize(image, 3, 1, ResizeFilter::kBilinear);
  EXPECT_EQ(out.pixels[4], 0) << "red of the middle";
  EXPECT_GT(out.pixels[5], 250) << "green of the middle";
  EXPECT_NEAR(out.pixels[7], 128, 2) << "its alpha";
}

TEST(Fit, equals_pillow) {
  for_each("fit_", 8, [](const Recorded& row) {
    const FitMode mode = row.words[0] == "fit_crop" ? FitMode::kCrop : FitMode::kFill;
    const Image out = fit(load(row.words[1]), row.expected.width, row.expected.height, mode);
    EXPECT_EQ(largest_difference(out, row.expected), 0) << name_of(row);
  });
}

TEST(Fit, extreme_shapes_take_no_more_memory_than_the_result) {
  const Image line{16384, 1, 3, std::vector<std::uint8_t>(16384 * 3, 77)};
  const Image column{1, 16384, 3, std::vector<std::uint8_t>(16384 * 3, 77)};
  for (const Image& image : {line, column}) {
    for (const FitMode mode : {FitMode::kStretch, FitMode::kCrop, FitMode::kFill}) {
      const Image out = fit(image, 64, 48, mode);
      EXPECT_EQ(largest_difference(out, {64, 48, 3, std::vector<std::uint8_t>(64 * 48 * 3, 77)}), 0);
    }
  }
}

TEST(Crop, takes_the_box_and_nothing_outside_the_picture) {
  const Image image{3, 2, 1, {1, 2, 3, 4, 5, 6}};
  EXPECT_EQ(crop(image, {1, 0, 3, 2}).pixels, (std::vector<std::uint8_t>{2, 3, 5, 6}));
  EXPECT_THROW((void)crop(image, {1, 0, 4, 2}), CheckFailure);
  EXPECT_THROW((void)crop(image, {1, 0, 1, 2}), CheckFailure);
}

TEST(Blur, equals_opencv) {
  for_each("blur", 5, [](const Recorded& row) {
    const Image mask = luminance(load(row.words[1]));
    const Image out = blur_mask(mask, std::stod(row.words[2]), std::stod(row.words[3]));
    EXPECT_EQ(largest_difference(out, row.expected), 0) << name_of(row);
  });
}

TEST(Blur, zero_changes_nothing_and_white_stays_white) {
  const Image mask = luminance(load("mask.png"));
  EXPECT_EQ(blur_mask(mask, 0, 0).pixels, mask.pixels);
  const Image white{5, 1, 1, std::vector<std::uint8_t>(5, 255)};
  EXPECT_EQ(blur_mask(white, 64, 64).pixels, white.pixels);
}

TEST(Masks, luminance_flatten_and_paste_equal_pillow) {
  for_each("luminance", 1,
           [](const Recorded& row) { EXPECT_EQ(largest_difference(luminance(load(row.words[1])), row.expected), 0); });
  for_each("flatten", 1, [](const Recorded& row) {
    EXPECT_EQ(largest_difference(flatten(load(row.words[1]), {10, 128, 250}), row.expected), 0);
  });
  for_each("paste", 1, [](const Recorded& row) {
    Image base = load("mask.png");
    paste(load(row.words[1]), alpha_of(load("rgba.png")), std::stoi(row.words[2]), std::stoi(row.words[3]), base);
    EXPECT_EQ(largest_difference(base, row.expected), 0);
  });
}

TEST(Masks, a_picture_means_its_alpha_only_when_it_has_some) {
  const Image opaque{2, 1, 4, {255, 255, 255, 255, 0, 0, 0, 255}};
  EXPECT_EQ(mask_from_picture(opaque).pixels, (std::vector<std::uint8_t>{255, 0}));
  const Image clear{3, 1, 4, {0, 0, 0, 128, 0, 0, 0, 129, 255, 255, 255, 0}};
  EXPECT_EQ(mask_from_picture(clear).pixels, (std::vector<std::uint8_t>{0, 255, 0}));
  EXPECT_EQ(mask_from_picture(clear, false).pixels, (std::vector<std::uint8_t>{128, 129, 0}));
  EXPECT_EQ(invert(mask_from_picture(clear)).pixels, (std::vector<std::uint8_t>{255, 0, 255}));
}

TEST(MaskedBox, holds_every_pixel_over_zero_and_stops_at_the_edges) {
  Image mask{10, 8, 1, std::vector<std::uint8_t>(80)};
  EXPECT_EQ(masked_box(mask, 4), std::nullopt);
  mask.pixels[2 * 10 + 3] = 1;
  mask.pixels[5 * 10 + 6] = 255;
  EXPECT_EQ(masked_box(mask, 0), (Box{3, 2, 7, 6}));
  EXPECT_EQ(masked_box(mask, 2), (Box{1, 0, 9, 8}));
  EXPECT_EQ(masked_box(mask, 2147483647), (Box{0, 0, 10, 8}));
}

TEST(ExpandToRatio, grows_one_axis_and_stays_in_the_picture) {
  EXPECT_EQ(expand_to_ratio({100, 200, 228, 232}, 512, 512, 512, 512), (Box{100, 152, 228, 280})) << "in the middle";
  EXPECT_EQ(expand_to_ratio({100, 200, 132, 328}, 512, 512, 512, 512), (Box{52, 200, 180, 328})) << "a tall one";
  EXPECT_EQ(expand_to_ratio({0, 0, 128, 32}, 512, 512, 512, 512), (Box{0, 0, 128, 128})) << "moved down";
  EXPECT_EQ(expand_to_ratio({0, 490, 128, 512}, 512, 512, 512, 512), (Box{0, 384, 128, 512})) << "moved up";
  EXPECT_EQ(expand_to_ratio({0, 10, 500, 20}, 512, 512, 512, 100), (Box{0, 0, 500, 100})) << "cut";
  EXPECT_EQ(expand_to_ratio({10, 10, 21, 20}, 100, 100, 512, 512), (Box{10, 10, 21, 21})) << "the odd pixel below";
}

}  // namespace
}  // namespace octavo::image
