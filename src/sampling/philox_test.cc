#include "sampling/philox.h"

#include <gtest/gtest.h>

#include <cmath>

namespace octavo::sampling {
namespace {

using Words = std::array<std::uint32_t, 4>;

TEST(Philox, has_the_published_answers) {
  // Random123's kat_vectors, lines "philox4x32 10".
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Words{0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8}));
  constexpr std::uint32_t kOnes = 0xFFFFFFFF;
  EXPECT_EQ(philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (Words{0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD}));
  EXPECT_EQ(philox4x32({0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344}, {0xA4093822, 0x299F31D0}),
            (Words{0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1}));
}

TEST(Philox, seed_0_draws_what_a1111_documents) {
  // The values in the head of A1111's modules/rng_philox.py, printed with eight digits: six ulp from its own formula.
  constexpr double kExpected[] = {-0.92466259, -0.42534415, -2.6438457,  0.14518388,  -0.12086647, -0.57972564,
                                  -0.62285122, -0.32838709, -1.07454231, -0.36314407, -1.67105067, 2.26550497};
  std::array<float, 12> drawn{};
  PhiloxGenerator(0).normal(drawn);
  for (std::size_t i = 0; i < drawn.size(); ++i) EXPECT_NEAR(drawn[i], kExpected[i], 1e-6) << i;
}

TEST(Philox, elements_do_not_depend_on_how_many_are_drawn_but_on_the_call) {
  std::vector<float> few(7), many(300), next(7);
  PhiloxGenerator generator(42);
  generator.normal(few);
  generator.normal(next);
  PhiloxGenerator(42).normal(many);
  EXPECT_TRUE(std::equal(few.begin(), few.end(), many.begin()));
  EXPECT_NE(few, next);
}

TEST(Philox, all_64_bits_of_the_seed_matter) {
  std::vector<float> low(4), high(4);
  PhiloxGenerator(7).normal(low);
  PhiloxGenerator((std::uint64_t{1} << 32) + 7).normal(high);
  EXPECT_NE(low, high);
}

TEST(Philox, values_are_standard_normal) {
  std::vector<float> values(1 << 18);
  PhiloxGenerator(123).normal(values);
  double sum = 0, squares = 0, fourth = 0;
  for (const float value : values) {
    ASSERT_TRUE(std::isfinite(value));
    sum += value;
    squares += static_cast<double>(value) * value;
    fourth += std::pow(static_cast<double>(value), 4);
  }
  const double count = static_cast<double>(values.size());
  EXPECT_NEAR(sum / count, 0.0, 0.01);
  EXPECT_NEAR(squares / count, 1.0, 0.01);
  EXPECT_NEAR(fourth / count, 3.0, 0.1);
}

}  // namespace
}  // namespace octavo::sampling
