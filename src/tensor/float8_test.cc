#include "tensor/float8.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

namespace octavo {
namespace {

/// A format seen from outside: its bits' meaning written down again in long double, and a rounding that looks through
/// every finite code for the nearest.
struct Format {
  const char* name;
  int exponent_bits;
  int mantissa_bits;
  bool has_infinity;
  float largest;
  float (*decode)(std::uint8_t code);
  std::uint8_t (*encode)(float value);
};

const Format kE4M3{"e4m3",
                   4,
                   3,
                   false,
                   kE4M3Largest,
                   [](std::uint8_t code) { return to_float(Float8E4M3{code}); },
                   [](float value) { return to_float8_e4m3(value).bits; }};
const Format kE5M2{"e5m2",
                   5,
                   2,
                   true,
                   kE5M2Largest,
                   [](std::uint8_t code) { return to_float(Float8E5M2{code}); },
                   [](float value) { return to_float8_e5m2(value).bits; }};

enum class Kind { kFinite, kInfinite, kNan };

std::pair<Kind, long double> meaning(const Format& format, int code) {
  const int bias = (1 << (format.exponent_bits - 1)) - 1;
  const int exponent = (code & 0x7F) >> format.mantissa_bits;
  const int mantissa = code & ((1 << format.mantissa_bits) - 1);
  const long double sign = (code & 0x80) != 0 ? -1.0L : 1.0L;
  const bool top = exponent == (1 << format.exponent_bits) - 1;
  if (format.has_infinity && top) return {mantissa == 0 ? Kind::kInfinite : Kind::kNan, sign};
  if (!format.has_infinity && (code & 0x7F) == 0x7F) return {Kind::kNan, sign};
  const long double fraction = static_cast<long double>(mantissa) / (1 << format.mantissa_bits);
  if (exponent == 0) return {Kind::kFinite, sign * std::ldexp(fraction, 1 - bias)};
  return {Kind::kFinite, sign * std::ldexp(1.0L + fraction, exponent - bias)};
}

class Float8 : public ::testing::TestWithParam<Format> {
 protected:
  Float8() {
    for (int code = 0; code < 0x80; ++code) {
      const auto [kind, value] = meaning(GetParam(), code);
      if (kind == Kind::kFinite) finite_.push_back(value);  // index = code
    }
  }

  int nearest(float value) const {
    if (std::isnan(value)) return 0x7F;
    const int sign = std::signbit(value) ? 0x80 : 0;
    const long double magnitude = std::min(std::fabs(static_cast<long double>(value)), finite_.back());
    int best = 0;
    for (int code = 1; code < static_cast<int>(finite_.size()); ++code) {
      const auto distance = [&](int of) { return std::fabs(finite_[static_cast<std::size_t>(of)] - magnitude); };
      if (distance(code) < distance(best) || (distance(code) == distance(best) && code % 2 == 0)) best = code;
    }
    return sign | best;
  }
  void expect_nearest(float value) const {
    EXPECT_EQ(static_cast<int>(GetParam().encode(value)), nearest(value)) << std::hexfloat << value;
  }

  std::vector<long double> finite_;
};

TEST_P(Float8, every_code_has_the_value_of_its_bits) {
  for (int code = 0; code < 256; ++code) {
    const float value = GetParam().decode(static_cast<std::uint8_t>(code));
    const auto [kind, expected] = meaning(GetParam(), code);
    switch (kind) {
      case Kind::kFinite:
        EXPECT_EQ(static_cast<long double>(value), expected) << code;
        EXPECT_EQ(std::signbit(value), code >= 0x80) << code;
        break;
      case Kind::kInfinite:
        EXPECT_EQ(value, std::numeric_limits<float>::infinity() * static_cast<float>(expected)) << code;
        break;
      case Kind::kNan:
        EXPECT_TRUE(std::isnan(value)) << code;
        break;
    }
  }
  EXPECT_EQ(static_cast<long double>(GetParam().largest), finite_.back());
}

TEST_P(Float8, every_finite_code_survives_a_round_trip) {
  for (int code = 0; code < 256; ++code) {
    const float value = GetParam().decode(static_cast<std::uint8_t>(code));
    if (std::isfinite(value)) {
      EXPECT_EQ(GetParam().encode(value), code);
    }
  }
}

TEST_P(Float8, every_bf16_value_goes_to_the_nearest_code) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    expect_nearest(to_float(BFloat16{static_cast<std::uint16_t>(bits)}));
  }
}

TEST_P(Float8, floats_at_and_beside_every_rounding_boundary_go_to_the_nearest_code) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  int boundaries = 0;
  const auto expect_around = [&](float value) {
    for (const float sign : {1.0f, -1.0f}) {
      expect_nearest(sign * value);
      expect_nearest(sign * std::nextafter(value, 0.0f));
      expect_nearest(sign * std::nextafter(value, kInfinity));
    }
    ++boundaries;
  };
  for (std::size_t code = 0; code + 1 < finite_.size(); ++code) {
    const long double middle = (finite_[code] + finite_[code + 1]) / 2;
    ASSERT_EQ(static_cast<long double>(static_cast<float>(middle)), middle);
    expect_around(static_cast<float>(middle));
    expect_around(static_cast<float>(finite_[code]));
  }
  EXPECT_EQ(boundaries, 2 * (static_cast<int>(finite_.size()) - 1));
  // Past the largest: the tie that an unsaturated encoding would send away, far values, infinity, f32's subnormals.
  const auto largest = static_cast<float>(finite_.back());
  const auto spacing = static_cast<float>(finite_.back() - finite_[finite_.size() - 2]);
  for (const float value :
       {largest, largest + spacing / 2, largest + spacing, 2 * largest, std::numeric_limits<float>::max(),
        std::numeric_limits<float>::min(), std::numeric_limits<float>::denorm_min()}) {
    expect_around(value);
  }
  expect_nearest(kInfinity);
  expect_nearest(-kInfinity);
}

TEST_P(Float8, too_large_becomes_the_largest_and_nan_stays_nan) {
  const auto largest = static_cast<std::uint8_t>(finite_.size() - 1);
  EXPECT_EQ(GetParam().encode(std::numeric_limits<float>::infinity()), largest);
  EXPECT_EQ(GetParam().encode(-std::numeric_limits<float>::infinity()), largest | 0x80);
  EXPECT_EQ(GetParam().encode(1e30f), largest);
  for (const std::uint32_t bits : {0x7F800001u, 0x7FC00000u, 0x7FFFFFFFu, 0xFF800001u, 0xFFFFFFFFu}) {
    EXPECT_EQ(GetParam().encode(std::bit_cast<float>(bits)), 0x7F);
  }
}

INSTANTIATE_TEST_SUITE_P(formats, Float8, ::testing::Values(kE4M3, kE5M2),
                         [](const auto& tested) { return std::string(tested.param.name); });

}  // namespace
}  // namespace octavo
