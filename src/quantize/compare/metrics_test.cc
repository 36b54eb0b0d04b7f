// Every metric against what other programs say of recorded pictures and vectors, and against what it must do whatever
// the formula: nothing for equal pictures, more for more.
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cmath>
#include <fstream>
#include <functional>
#include <limits>
#include <string>

#include "image/codec.h"
#include "quantize/compare/perceptual_distance.h"
#include "quantize/compare/picture_error.h"
#include "quantize/compare/plane.h"
#include "quantize/compare/vector_error.h"

namespace octavo::quantize {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Both sides compute in double; sums are ordered otherwise.
constexpr double kTolerance = 1e-9;

std::string recorded_file(const std::string& name) {
  std::ifstream file(std::string(OCTAVO_SOURCE_DIR "/tests/parity/fixtures/quality/") + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

image::Image recorded_picture(const std::string& name) {
  const std::string bytes = recorded_file(name);
  auto picture = image::decode({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()}, name);
  EXPECT_TRUE(picture.ok()) << picture.status().to_string();
  return *picture;
}

boost::json::value recorded_figures() { return boost::json::parse(recorded_file("figures.json")); }

TEST(VectorError, equals_what_numpy_says) {
  const boost::json::value figures = recorded_figures();
  const auto& rows = figures.at("vectors").as_array();
  ASSERT_EQ(rows.size(), 3u);
  for (const auto& row : rows) {
    const auto reference = boost::json::value_to<std::vector<float>>(row.at("reference"));
    const auto test = boost::json::value_to<std::vector<float>>(row.at("test"));
    const VectorError error = vector_error(reference, test);
    EXPECT_NEAR(error.sqnr_db, row.at("sqnr_db").as_double(), kTolerance);
    EXPECT_NEAR(error.cosine, row.at("cosine").as_double(), kTolerance);
    EXPECT_NEAR(error.relative_l2, row.at("relative_l2").as_double(), kTolerance);
  }
}

TEST(VectorError, equal_zero_and_opposite_vectors_have_limits) {
  const std::vector<float> a{1, -2, 3}, zero{0, 0, 0}, opposite{-1, 2, -3};
  EXPECT_EQ(vector_error(a, a).sqnr_db, kInfinity);
  EXPECT_EQ(vector_error(a, a).cosine, 1);
  EXPECT_EQ(vector_error(zero, zero).sqnr_db, kInfinity);
  EXPECT_EQ(vector_error(zero, a).sqnr_db, -kInfinity);
  EXPECT_EQ(vector_error(a, zero).sqnr_db, 0);
  EXPECT_EQ(vector_error(a, zero).cosine, 0);
  EXPECT_EQ(vector_error(a, opposite).cosine, -1);
  EXPECT_EQ(vector_error(a, opposite).relative_l2, 2);
}

TEST(PictureMetrics, equal_what_other_programs_say) {
  const image::Image reference = recorded_picture("reference.png");
  const boost::json::value figures = recorded_figures();
  const auto& rows = figures.at("pictures").as_array();
  ASSERT_EQ(rows.size(), 5u);
  for (const auto& row : rows) {
    const std::string name(row.at("file").as_string());
    const image::Image picture = recorded_picture(name);
    EXPECT_NEAR(psnr_db(reference, picture), row.at("psnr_db").as_double(), kTolerance) << name;
    EXPECT_NEAR(ssim(reference, picture), row.at("ssim").as_double(), kTolerance) << name;
    EXPECT_NEAR(perceptual_distance(reference, picture), row.at("perceptual").as_double(), kTolerance) << name;
  }
}

TEST(PictureMetrics, equal_pictures_have_no_difference) {
  for (const char* name : {"reference.png", "noise.png"}) {
    const image::Image picture = recorded_picture(name);
    EXPECT_EQ(psnr_db(picture, picture), kInfinity);
    EXPECT_EQ(ssim(picture, picture), 1);
    EXPECT_EQ(perceptual_distance(picture, picture), 0);
    EXPECT_EQ(difference_map(picture, picture, 8).pixels, std::vector<std::uint8_t>(picture.byte_count(), 0));
  }
}

TEST(PictureMetrics, do_not_ask_which_picture_came_first) {
  const image::Image a = recorded_picture("reference.png"), b = recorded_picture("other.png");
  EXPECT_EQ(psnr_db(a, b), psnr_db(b, a));
  EXPECT_EQ(perceptual_distance(a, b), perceptual_distance(b, a));
  EXPECT_NEAR(ssim(a, b), ssim(b, a), kTolerance);
}

/// A picture of 96 x 80 with slopes, edges and a texture.
image::Image scene() {
  image::Image out{96, 80, 3, {}};
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x) {
      const bool disc = (x - 40) * (x - 40) + (y - 30) * (y - 30)<400, stripes = y> 60 && x / 3 % 2 == 0;
      out.pixels.push_back(static_cast<std::uint8_t>(disc ? 200 : 40 + x));
      out.pixels.push_back(static_cast<std::uint8_t>(stripes ? 220 : 60 + y));
      out.pixels.push_back(static_cast<std::uint8_t>(disc ? 60 : 190 - x / 2 - y / 2));
    }
  }
  return out;
}

using Change = std::function<image::Image(int strength)>;

image::Image each_pixel(const image::Image& picture, const std::function<double(int x, int y, int c)>& value) {
  image::Image out = picture;
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x) {
      for (int c = 0; c < 3; ++c) {
        out.pixels[(static_cast<std::size_t>(y) * out.width + x) * 3 + c] =
            static_cast<std::uint8_t>(std::lround(std::clamp(value(x, y, c), 0.0, 255.0)));
      }
    }
  }
  return out;
}

double at(const image::Image& picture, int x, int y, int c) {
  return picture.pixels[(static_cast<std::size_t>(y) * picture.width + x) * 3 + c];
}

image::Image blurred(const image::Image& picture, int times) {
  std::vector<Plane> planes(3, Plane(picture.width, picture.height));
  for (std::size_t i = 0; i < picture.pixels.size(); ++i) planes[i % 3].values[i / 3] = picture.pixels[i];
  for (Plane& plane : planes) {
    for (int i = 0; i < times; ++i) plane = smooth(plane);
  }
  return each_pixel(picture, [&](int x, int y, int c) {
    return planes[static_cast<std::size_t>(c)].values[static_cast<std::size_t>(y) * picture.width + x];
  });
}

image::Image noisy(const image::Image& picture, int levels) {
  std::uint32_t state = 1;
  return each_pixel(picture, [&](int x, int y, int c) {
    state = state * 1664525u + 1013904223u;  // Numerical Recipes' generator
    return at(picture, x, y, c) + levels * (static_cast<double>(state >> 8) / (1 << 24) * 2 - 1);
  });
}

TEST(PerceptualDistance, grows_with_blur_noise_shift_tint_and_fading) {
  const image::Image plain = scene();
  const struct {
    const char* name;
    Change change;
    std::vector<int> strengths;
  } cases[] = {
      {"blur", [&](int s) { return blurred(plain, s); }, {1, 2, 4, 8, 16}},
      {"noise", [&](int s) { return noisy(plain, s); }, {1, 3, 9, 27, 81}},
      {"shift",
       [&](int s) {
         return each_pixel(plain, [&](int x, int y, int c) { return at(plain, std::max(0, x - s), y, c); });
       },
       {1, 2, 4, 8, 16}},
      {"tint",
       [&](int s) { return each_pixel(plain, [&](int x, int y, int c) { return at(plain, x, y, c) + (c - 1) * s; }); },
       {1, 4, 10, 20, 40}},
      {"fading",
       [&](int s) {
         return each_pixel(plain, [&](int x, int y, int c) { return 128 + (at(plain, x, y, c) - 128) / s; });
       },
       {2, 3, 5, 10}},
  };
  for (const auto& one : cases) {
    double previous = 0;
    for (const int strength : one.strengths) {
      const double distance = perceptual_distance(plain, one.change(strength));
      EXPECT_GT(distance, previous) << one.name << " of strength " << strength;
      EXPECT_LT(distance, 1) << one.name;
      previous = distance;
    }
  }
}

TEST(PerceptualDistance, tells_what_is_seen_from_what_is_not) {
  const image::Image plain = scene();
  const double hardly = perceptual_distance(plain, noisy(plain, 2));
  const double other = perceptual_distance(
      plain, each_pixel(plain, [&](int x, int y, int c) { return at(plain, plain.width - 1 - x, y, c); }));
  EXPECT_LT(hardly, 0.05);
  EXPECT_GT(other, 0.25);
}

TEST(PerceptualDistance, takes_any_size) {
  for (const auto& [width, height] : {std::pair{1, 1}, {3, 40}, {17, 16}}) {
    image::Image a{width, height, 3, {}};
    a.pixels.assign(a.byte_count(), 10);
    image::Image b = a;
    b.pixels.assign(b.byte_count(), 200);
    EXPECT_EQ(perceptual_distance(a, a), 0);
    EXPECT_GT(perceptual_distance(a, b), 0);
    EXPECT_LT(perceptual_distance(a, b), 1);
  }
}

TEST(DifferenceMap, multiplies_and_cuts) {
  const image::Image a{2, 1, 3, {0, 10, 255, 100, 100, 100}}, b{2, 1, 3, {1, 7, 0, 100, 164, 90}};
  EXPECT_EQ(difference_map(a, b, 4).pixels, (std::vector<std::uint8_t>{4, 12, 255, 0, 255, 40}));
  DifferenceHistogram histogram;
  histogram.add(a, b);  // 0, 1, 3, 10, 64, 255
  EXPECT_EQ(histogram.quantile(0.5), 3);
  EXPECT_EQ(histogram.quantile(0.6), 10);
  EXPECT_EQ(histogram.quantile(1.0), 255);
}

}  // namespace
}  // namespace octavo::quantize
