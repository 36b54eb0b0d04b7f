#include "tensor/quantized.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "tensor/convert.h"

namespace octavo {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kDenormal = std::numeric_limits<float>::denorm_min();

/// Codes and scales in memory of their own.
struct Quantized {
  Quantized(DType format, ScaleGrain grain, std::int64_t rows, std::int64_t inner)
      : codes(static_cast<std::size_t>(rows * inner)),
        scales(static_cast<std::size_t>(scale_shape(grain, rows, inner).element_count()), -1.0f),
        view{TensorView(codes.data(), format, Shape{rows, inner}),
             TensorView(scales.data(), DType::kF32, scale_shape(grain, rows, inner)), grain} {}

  std::vector<float> values() const {
    std::vector<float> result(codes.size());
    dequantize_rows(view, TensorView(result.data(), DType::kF32, view.codes.shape()));
    return result;
  }

  std::vector<std::byte> codes;
  std::vector<float> scales;
  QuantizedView view;
};

std::vector<float> random_values(std::size_t count, float spread, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

/// The group of an element, written down apart from the code under test.
std::int64_t group_of(ScaleGrain grain, std::int64_t row, std::int64_t column, std::int64_t inner) {
  if (grain == ScaleGrain::kTensor) return 0;
  return grain == ScaleGrain::kRow ? row : row * ((inner + 127) / 128) + column / 128;
}

class QuantizedRows : public ::testing::TestWithParam<std::tuple<DType, ScaleGrain>> {
 protected:
  DType format() const { return std::get<0>(GetParam()); }
  ScaleGrain grain() const { return std::get<1>(GetParam()); }
  std::uint8_t encode(float value) const {
    if (format() == DType::kE4M3) return to_float8_e4m3(value).bits;
    if (format() == DType::kE5M2) return to_float8_e5m2(value).bits;
    return static_cast<std::uint8_t>(static_cast<std::int8_t>(std::nearbyint(std::clamp(value, -127.0f, 127.0f))));
  }
};

TEST_P(QuantizedRows, scales_and_codes_follow_the_formula_for_every_source_type) {
  // Longer than one chunk of the implementation, the last block short, rows strided.
  constexpr std::int64_t kRows = 5;
  constexpr std::int64_t kInner = 1024 + 300;
  constexpr std::int64_t kStride = kInner + 7;
  for (const DType source : {DType::kF32, DType::kBF16, DType::kF16}) {
    const std::vector<float> floats = random_values(kRows * kStride, 3.0f, 1);
    std::vector<std::byte> stored(floats.size() * dtype_size(source));
    convert_elements(reinterpret_cast<const std::byte*>(floats.data()), DType::kF32, stored.data(), source,
                     static_cast<std::int64_t>(floats.size()));
    std::vector<float> x(floats.size());
    convert_elements(stored.data(), source, reinterpret_cast<std::byte*>(x.data()), DType::kF32,
                     static_cast<std::int64_t>(floats.size()));
    const TensorView view = TensorView(stored.data(), source, Shape{kRows, kStride}).slice(1, 0, kInner);
    const Quantized quantized(format(), grain(), kRows, kInner);
    quantize_rows(view, quantized.view);

    std::vector<float> amax(quantized.scales.size(), 0.0f);
    for (std::int64_t row = 0; row < kRows; ++row) {
      for (std::int64_t column = 0; column < kInner; ++column) {
        float& largest = amax[static_cast<std::size_t>(group_of(grain(), row, column, kInner))];
        largest = std::max(largest, std::fabs(x[static_cast<std::size_t>(row * kStride + column)]));
      }
    }
    for (std::size_t i = 0; i < amax.size(); ++i) {
      EXPECT_EQ(quantized.scales[i], amax[i] / largest_code(format())) << i;
    }
    const std::vector<float> values = quantized.values();
    for (std::int64_t row = 0; row < kRows; ++row) {
      for (std::int64_t column = 0; column < kInner; ++column) {
        const float scale = quantized.scales[static_cast<std::size_t>(group_of(grain(), row, column, kInner))];
        const auto at = static_cast<std::size_t>(row * kInner + column);
        const float element = x[static_cast<std::size_t>(row * kStride + column)];
        ASSERT_EQ(std::to_integer<int>(quantized.codes[at]), encode(element * (1.0f / scale))) << row << ' ' << column;
        // Half a step of the format: 2^-4 or 2^-3 of the value above the subnormals, half of the smallest step below.
        const float half_step = format() == DType::kI8     ? 0.5f * scale
                                : format() == DType::kE4M3 ? std::max(std::fabs(element) / 16, 0x1p-10f * scale)
                                                           : std::max(std::fabs(element) / 8, 0x1p-17f * scale);
        ASSERT_NEAR(values[at], element, half_step * 1.001f);
      }
    }
  }
}

TEST_P(QuantizedRows, the_largest_element_gets_the_largest_code) {
  for (const float amax : {1.0f, 3.3f, 1e-30f, 1e30f, 3.4e38f}) {
    const std::vector<float> x = {amax, -amax, amax / 2, 0.0f};
    const Quantized quantized(format(), grain(), 1, 4);
    quantize_rows(TensorView(x.data(), DType::kF32, Shape{1, 4}), quantized.view);
    const std::vector<float> values = quantized.values();
    EXPECT_NEAR(values[0] / amax, 1.0f, 1e-6f);
    EXPECT_EQ(values[1], -values[0]);
    EXPECT_EQ(values[3], 0.0f);
  }
}

TEST_P(QuantizedRows, zero_rows_have_scale_one_and_zero_codes) {
  const std::vector<float> x = {0.0f, -0.0f, 0.0f, 0.0f};
  const Quantized quantized(format(), grain(), 2, 2);
  quantize_rows(TensorView(x.data(), DType::kF32, Shape{2, 2}), quantized.view);
  for (const float scale : quantized.scales) EXPECT_EQ(scale, 1.0f);
  for (const float value : quantized.values()) EXPECT_EQ(value, 0.0f);
}

TEST_P(QuantizedRows, denormals_give_finite_reciprocals_and_values_that_stay_near) {
  for (const float amax : {kDenormal, 100 * kDenormal, std::numeric_limits<float>::min(), 1e-37f, 1e-35f}) {
    const std::vector<float> x = {amax, -amax / 2, 0.0f};
    const Quantized quantized(format(), grain(), 1, 3);
    quantize_rows(TensorView(x.data(), DType::kF32, Shape{1, 3}), quantized.view);
    EXPECT_TRUE(std::isnormal(quantized.scales[0])) << amax;
    EXPECT_TRUE(std::isfinite(1.0f / quantized.scales[0])) << amax;
    const std::vector<float> values = quantized.values();
    // The smallest scale is 2^-126: below it only codes near 1 are left.
    const float smallest_step = 0x1p-126f * (format() == DType::kI8 ? 1.0f : 0x1p-9f);
    for (std::size_t i = 0; i < x.size(); ++i) {
      EXPECT_NEAR(values[i], x[i], std::max(std::fabs(x[i]) / 8, smallest_step)) << amax;
    }
  }
}

TEST_P(QuantizedRows, what_is_not_finite_is_an_error_that_names_its_place) {
  for (const float bad : {kNan, -kNan, kInfinity, -kInfinity}) {
    std::vector<float> x = random_values(3 * 1500, 1.0f, 2);
    x[2 * 1500 + 1400] = bad;
    const Quantized quantized(format(), grain(), 3, 1500);
    const TensorView view(x.data(), DType::kF32, Shape{3, 1500});
    const Status status = try_quantize_rows(view, quantized.view, "blocks.0.weight", 100);
    EXPECT_EQ(status.code(), ErrorCode::kDataCorruption);
    EXPECT_EQ(status.subject(), "blocks.0.weight");
    EXPECT_NE(status.message().find("row 102, column 1400"), std::string::npos) << status.message();
    EXPECT_NE(status.message().find(std::isnan(bad) ? "nan" : "inf"), std::string::npos) << status.message();
  }
}

TEST_P(QuantizedRows, what_is_not_finite_shows_in_its_group_and_nowhere_else) {
  for (const float bad : {kNan, kInfinity, -kInfinity}) {
    std::vector<float> x(2 * 256, 1.0f);
    x[256 + 3] = bad;  // second row, first block
    const Quantized quantized(format(), grain(), 2, 256);
    quantize_rows(TensorView(x.data(), DType::kF32, Shape{2, 256}), quantized.view);
    const std::vector<float> values = quantized.values();
    for (std::int64_t i = 0; i < 512; ++i) {
      const bool poisoned = group_of(grain(), i / 256, i % 256, 256) == group_of(grain(), 1, 3, 256);
      ASSERT_EQ(std::isnan(values[static_cast<std::size_t>(i)]), poisoned) << i;
    }
  }
}

TEST_P(QuantizedRows, finite_rows_pass_the_check_and_code_alike) {
  const std::vector<float> x = random_values(4 * 200, 1.0f, 3);
  const TensorView view(x.data(), DType::kF32, Shape{4, 200});
  const Quantized plain(format(), grain(), 4, 200);
  const Quantized checked(format(), grain(), 4, 200);
  quantize_rows(view, plain.view);
  ASSERT_TRUE(try_quantize_rows(view, checked.view, "x").ok());
  EXPECT_EQ(plain.codes, checked.codes);
  EXPECT_EQ(plain.scales, checked.scales);
}

TEST_P(QuantizedRows, given_scales_saturate) {
  const Quantized quantized(format(), grain(), 1, 4);
  std::ranges::fill(const_cast<std::vector<float>&>(quantized.scales), 0.5f);
  const float beyond = largest_code(format()) * 10;
  const std::vector<float> x = {beyond, -beyond, 0.5f, kInfinity};
  encode_rows(TensorView(x.data(), DType::kF32, Shape{1, 4}), quantized.view);
  const std::vector<float> values = quantized.values();
  EXPECT_EQ(values[0], largest_code(format()) * 0.5f);
  EXPECT_EQ(values[1], -values[0]);
  EXPECT_EQ(values[2], 0.5f);
  EXPECT_EQ(values[3], values[0]);
}

INSTANTIATE_TEST_SUITE_P(formats_and_grains, QuantizedRows,
                         ::testing::Combine(::testing::Values(DType::kE4M3, DType::kE5M2, DType::kI8),
                                            ::testing::Values(ScaleGrain::kTensor, ScaleGrain::kRow,
                                                              ScaleGrain::kBlock128)),
                         [](const auto& tested) {
                           return std::string(dtype_name(std::get<0>(tested.param))) + "_" +
                                  std::string(scale_grain_name(std::get<1>(tested.param)));
                         });

TEST(Quantized, integer_codes_round_half_to_even_and_stay_symmetric) {
  EXPECT_EQ(to_int8_code(0.5f), 0);
  EXPECT_EQ(to_int8_code(1.5f), 2);
  EXPECT_EQ(to_int8_code(2.5f), 2);
  EXPECT_EQ(to_int8_code(-2.5f), -2);
  EXPECT_EQ(to_int8_code(126.49999f), 126);
  EXPECT_EQ(to_int8_code(1e30f), 127);
  EXPECT_EQ(to_int8_code(-1e30f), -127);
  EXPECT_EQ(to_int8_code(-kInfinity), -127);
  EXPECT_EQ(to_int8_code(kNan), 0);
}

TEST(Quantized, portions_with_the_whole_tensors_scale_equal_the_whole) {
  const std::vector<float> x = random_values(6 * 100, 1.0f, 4);
  const TensorView view(x.data(), DType::kF32, Shape{6, 100});
  const Quantized whole(DType::kE4M3, ScaleGrain::kTensor, 6, 100);
  quantize_rows(view, whole.view);
  float amax = 0;
  for (std::int64_t row = 0; row < 6; row += 2) amax = std::max(amax, largest_magnitude(view.slice(0, row, 2)));
  const Quantized portions(DType::kE4M3, ScaleGrain::kTensor, 6, 100);
  portions.view.dequant_scale.f32()[0] = dequant_scale_of(amax, DType::kE4M3);
  for (std::int64_t row = 0; row < 6; row += 2) {
    QuantizedView part = portions.view;
    part.codes = part.codes.slice(0, row, 2);
    encode_rows(view.slice(0, row, 2), part);
  }
  EXPECT_EQ(portions.codes, whole.codes);
  EXPECT_EQ(portions.scales, whole.scales);
}

TEST(Quantized, a_product_of_code_and_scale_is_rounded_once_to_the_wanted_type) {
  const std::vector<float> x = random_values(64, 1.0f, 5);
  const Quantized quantized(DType::kE4M3, ScaleGrain::kRow, 1, 64);
  quantize_rows(TensorView(x.data(), DType::kF32, Shape{1, 64}), quantized.view);
  std::vector<BFloat16> narrow(64);
  dequantize_rows(quantized.view, TensorView(narrow.data(), DType::kBF16, Shape{1, 64}));
  const std::vector<float> values = quantized.values();
  for (std::size_t i = 0; i < 64; ++i) EXPECT_EQ(narrow[i].bits, to_bfloat16(values[i]).bits);
}

TEST(Quantized, empty_tensors_are_no_work) {
  const Quantized none(DType::kE4M3, ScaleGrain::kTensor, 0, 8);
  const TensorView view(static_cast<void*>(nullptr), DType::kF32, Shape{0, 8});
  EXPECT_TRUE(try_quantize_rows(view, none.view, "x").ok());
  EXPECT_EQ(none.scales[0], 1.0f);
}

TEST(Quantized, scales_of_another_shape_are_a_programmers_error) {
  const Quantized quantized(DType::kE4M3, ScaleGrain::kRow, 2, 8);
  QuantizedView wrong = quantized.view;
  wrong.grain = ScaleGrain::kBlock128;
  const std::vector<float> x(16);
  EXPECT_THROW(quantize_rows(TensorView(x.data(), DType::kF32, Shape{2, 8}), wrong), CheckFailure);
}

}  // namespace
}  // namespace octavo
