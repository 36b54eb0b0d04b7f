#include "sampling/initial_noise.h"

#include <gtest/gtest.h>

#include <cmath>

namespace octavo::sampling {
namespace {

const Shape kShape{16, 8, 6};

std::vector<float> draw(const NoiseOptions& options, const Shape& shape = kShape) {
  std::vector<float> values(static_cast<std::size_t>(shape.element_count()));
  draw_initial_noise(options, shape, values);
  return values;
}

TEST(InitialNoise, is_the_seed_s_first_draw_and_the_stream_goes_on_from_there) {
  for (const NoiseSource source : {NoiseSource::kTorchCpu, NoiseSource::kPhilox}) {
    std::vector<float> values(static_cast<std::size_t>(kShape.element_count()));
    NoiseStream left = draw_initial_noise({.source = source, .seed = 5}, kShape, values);
    NoiseStream stream(source, 5);
    std::vector<float> expected(values.size());
    stream.normal(expected);
    EXPECT_EQ(values, expected);
    EXPECT_EQ(left, stream);
    // Neither a variation nor a resize moves the stream: later noise is the seed's.
    EXPECT_EQ(
        draw_initial_noise(
            {.source = source, .seed = 5, .subseed = 6, .subseed_strength = 0.5, .resize_height = 4, .resize_width = 4},
            kShape, values),
        stream);
  }
}

TEST(InitialNoise, strength_goes_from_the_seed_to_the_subseed) {
  const NoiseOptions seed{.seed = 1}, subseed{.seed = 2};
  EXPECT_EQ(draw({.seed = 1, .subseed = 2, .subseed_strength = 0}), draw(seed));
  const std::vector<float> end = draw({.seed = 1, .subseed = 2, .subseed_strength = 1});
  const std::vector<float> target = draw(subseed);
  for (std::size_t i = 0; i < end.size(); ++i) EXPECT_NEAR(end[i], target[i], 1e-5);
  // In between it stays noise: its variance does not sink as a linear mixture's would (to 0.5).
  const Shape large{16, 32, 32};
  double squares = 0;
  const std::vector<float> middle = draw({.seed = 1, .subseed = 2, .subseed_strength = 0.5}, large);
  for (const float value : middle) squares += static_cast<double>(value) * value;
  EXPECT_NEAR(squares / static_cast<double>(middle.size()), 1.0, 0.03);
}

TEST(InitialNoise, a_subseed_equal_to_the_seed_changes_nothing) {
  const std::vector<float> plain = draw({.seed = 3});
  const std::vector<float> same = draw({.seed = 3, .subseed = 3, .subseed_strength = 0.3});
  for (std::size_t i = 0; i < plain.size(); ++i) EXPECT_NEAR(same[i], plain[i], 1e-6);
}

TEST(InitialNoise, columns_of_one_value_have_no_angle_and_are_mixed_in_a_line) {
  std::vector<float> low = {1.0f, -2.0f};
  slerp_columns(0.25, Shape{2, 1, 1}, low, std::vector<float>{3.0f, 2.0f});
  EXPECT_EQ(low, (std::vector<float>{1.5f, -1.0f}));
}

TEST(InitialNoise, a_smaller_size_is_pasted_into_the_middle) {
  const std::vector<float> plain = draw({.seed = 4});
  const std::vector<float> resized = draw({.seed = 4, .resize_height = 4, .resize_width = 3});
  const std::vector<float> small = draw({.seed = 4}, Shape{16, 4, 3});
  for (std::int64_t c = 0; c < 16; ++c) {
    for (std::int64_t y = 0; y < 8; ++y) {
      for (std::int64_t x = 0; x < 6; ++x) {
        const bool inside = y >= 2 && y < 6 && x >= 1 && x < 4;  // dy = (8 - 4) / 2, dx = (6 - 3) / 2
        const auto at = static_cast<std::size_t>((c * 8 + y) * 6 + x);
        const float expected = inside ? small[static_cast<std::size_t>((c * 4 + y - 2) * 3 + x - 1)] : plain[at];
        ASSERT_EQ(resized[at], expected) << c << " " << y << " " << x;
      }
    }
  }
}

TEST(InitialNoise, of_a_larger_size_the_middle_is_kept) {
  // dy = (8 - 13) // 2 = -3: rows 3 .. 9 of 13 fill rows 0 .. 6, and row 7 keeps the seed's own noise, as in A1111.
  const std::vector<float> plain = draw({.seed = 4});
  const std::vector<float> resized = draw({.seed = 4, .resize_height = 13, .resize_width = 6});
  const std::vector<float> large = draw({.seed = 4}, Shape{16, 13, 6});
  for (std::int64_t c = 0; c < 16; ++c) {
    for (std::int64_t y = 0; y < 8; ++y) {
      for (std::int64_t x = 0; x < 6; ++x) {
        const auto at = static_cast<std::size_t>((c * 8 + y) * 6 + x);
        const float expected = y < 7 ? large[static_cast<std::size_t>((c * 13 + y + 3) * 6 + x)] : plain[at];
        ASSERT_EQ(resized[at], expected) << c << " " << y << " " << x;
      }
    }
  }
}

}  // namespace
}  // namespace octavo::sampling
