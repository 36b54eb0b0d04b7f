#include "ops/quantize/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ops/op_test.h"

namespace octavo::ops {
namespace {

constexpr DType kFormats[] = {DType::kE4M3, DType::kE5M2, DType::kI8};
constexpr ScaleGrain kGrains[] = {ScaleGrain::kTensor, ScaleGrain::kRow, ScaleGrain::kBlock128};

/// What the op writes, in memory of its own.
struct Quantized {
  Quantized(const Shape& shape, DType format, ScaleGrain grain, std::int64_t outlier_count)
      : codes(static_cast<std::size_t>(shape.element_count()), std::byte{0x55}),
        outliers(DType::kBF16, with_inner(shape, outlier_count)) {
    const std::int64_t rows = shape.element_count() / shape[-1];
    scales.assign(static_cast<std::size_t>(scale_shape(grain, rows, shape[-1]).element_count()), 0.02f);
    view = {TensorView(codes.data(), format, shape),
            TensorView(scales.data(), DType::kF32, scale_shape(grain, rows, shape[-1])), grain};
  }
  static Shape with_inner(const Shape& shape, std::int64_t inner) {
    return shape.rank() == 3 ? Shape{shape[0], shape[1], inner} : Shape{shape[0], inner};
  }
  std::vector<std::byte> codes;
  std::vector<float> scales;
  TestTensor outliers;
  QuantizedView view;
};

struct Case {
  Shape shape;
  DType x = DType::kF32;
  DType format = DType::kE4M3;
  ScaleGrain grain = ScaleGrain::kRow;
  bool multiplier = false;
  std::vector<std::int32_t> outliers = {};
};

Quantized run(ExecutionContext& context, const Case& c, const TestTensor& x) {
  const TestTensor multiplier = TestTensor::random(DType::kF32, Shape{c.shape[-1]}, 2, 0.3f, 1.0f);
  Quantized result(c.shape, c.format, c.grain, static_cast<std::int64_t>(c.outliers.size()));
  QuantizeArgs args{.x = x, .multiplier = {}, .outliers = {}, .out = result.view, .outlier_values = {}};
  if (c.multiplier) args.multiplier = multiplier;
  if (!c.outliers.empty()) {
    args.outliers = TensorView(c.outliers.data(), DType::kI32, Shape{static_cast<std::int64_t>(c.outliers.size())});
    args.outlier_values = result.outliers;
  }
  quantize(context, args);
  return result;
}

void expect_rows_equal_reference(const Case& c, const TestTensor& x) {
  TestContext context(3);
  const Quantized expected = run(context.with_row("quantize", "reference"), c, x);
  for (const std::string_view row : context.rows(quantize_table())) {
    const Quantized actual = run(context.with_row("quantize", row), c, x);
    const std::string name = fmt::format("{} {} {} {} {}", row, c.shape.to_string(), dtype_name(c.x),
                                         dtype_name(c.format), scale_grain_name(c.grain));
    EXPECT_EQ(std::memcmp(actual.scales.data(), expected.scales.data(), actual.scales.size() * sizeof(float)), 0)
        << name;
    EXPECT_EQ(actual.codes, expected.codes) << name;
    if (!c.outliers.empty()) {
      EXPECT_TRUE(same_bits(actual.outliers, expected.outliers)) << name;
    }
  }
}

TEST(Quantize, every_row_equals_the_reference_bit_for_bit) {
  for (const Shape& shape : {Shape{1, 1}, Shape{3, 37}, Shape{2, 3, 128}, Shape{2, 5, 300}, Shape{40, 1000}}) {
    for (const DType x : {DType::kF32, DType::kBF16, DType::kF16}) {
      for (const DType format : kFormats) {
        for (const ScaleGrain grain : kGrains) {
          const TestTensor values = TestTensor::random(x, shape, 1, 2.0f, 0.1f, 5);
          expect_rows_equal_reference({.shape = shape, .x = x, .format = format, .grain = grain}, values);
        }
      }
    }
  }
}

TEST(Quantize, every_bf16_value_is_coded_as_the_conversions_say) {
  TestContext context;
  const TestTensor x(DType::kBF16, Shape{256, 256});
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    x.view().as<BFloat16>()[bits] = {static_cast<std::uint16_t>(bits)};
  }
  for (const std::string_view row : context.rows(quantize_table())) {
    for (const DType format : kFormats) {
      Quantized out(Shape{256, 256}, format, ScaleGrain::kTensor, 0);
      out.scales[0] = 1.0f;
      quantize(context.with_row("quantize", row),
               {.x = x, .multiplier = {}, .outliers = {}, .out = out.view, .outlier_values = {}});
      for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
        const float value = to_float(BFloat16{static_cast<std::uint16_t>(bits)});
        const int expected = format == DType::kE4M3   ? to_float8_e4m3(value).bits
                             : format == DType::kE5M2 ? to_float8_e5m2(value).bits
                                                      : static_cast<std::uint8_t>(to_int8_code(value));
        ASSERT_EQ(std::to_integer<int>(out.codes[bits]), expected) << row << ' ' << value;
      }
    }
  }
}

TEST(Quantize, multipliers_and_split_columns_equal_the_reference) {
  const Shape shape{2, 7, 300};
  for (const std::vector<std::int32_t>& outliers :
       {std::vector<std::int32_t>{0}, {299}, {0, 1, 2, 127, 128, 255, 256, 299}, {5, 130, 131, 132}}) {
    for (const DType x : {DType::kF32, DType::kBF16}) {
      for (const ScaleGrain grain : kGrains) {
        for (const bool multiplier : {false, true}) {
          const TestTensor values = TestTensor::random(x, shape, 1, 2.0f);
          expect_rows_equal_reference(
              {.shape = shape, .x = x, .grain = grain, .multiplier = multiplier, .outliers = outliers}, values);
        }
      }
    }
  }
}

TEST(Quantize, split_columns_do_not_count_in_the_scale) {
  TestContext context;
  TestTensor x = TestTensor::random(DType::kF32, Shape{4, 256}, 1);
  for (std::int64_t row = 0; row < 4; ++row) x.view().f32()[row * 256 + 77] = 1000.0f;
  const Case with{.shape = Shape{4, 256}, .outliers = {77}};
  const Case without{.shape = Shape{4, 256}};
  const Quantized split = run(context.get(), with, x);
  const Quantized whole = run(context.get(), without, x);
  for (std::size_t row = 0; row < 4; ++row) {
    EXPECT_LT(split.scales[row], 10.0f / 448);
    EXPECT_EQ(whole.scales[row], 1000.0f / 448);
    EXPECT_EQ(split.codes[row * 256 + 77], std::byte{0});
    EXPECT_EQ(to_float(split.outliers.view().as<BFloat16>()[row]), 1000.0f);
  }
}

TEST(Quantize, hostile_rows_equal_the_reference) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kHostile[] = {0.0f, -0.0f, 1e-45f, 1e-40f, 1.2e-38f, 3e38f, -kInfinity, kInfinity, kNan};
  for (const DType format : kFormats) {
    for (const ScaleGrain grain : kGrains) {
      TestTensor x = TestTensor::random(DType::kF32, Shape{static_cast<std::int64_t>(std::size(kHostile)) * 2, 150}, 1);
      for (std::size_t i = 0; i < std::size(kHostile); ++i) {
        float* row = x.view().f32() + 2 * i * 150;
        for (int k = 0; k < 150; ++k) row[k] = kHostile[i];     // a row of it
        x.view().f32()[(2 * i + 1) * 150 + 140] = kHostile[i];  // a row with one
      }
      expect_rows_equal_reference({.shape = x.view().shape(), .format = format, .grain = grain}, x);
    }
  }
}

TEST(Quantize, a_row_does_not_depend_on_its_neighbours) {
  TestContext context;
  const TestTensor x = TestTensor::random(DType::kBF16, Shape{50, 192}, 1);
  for (const ScaleGrain grain : kGrains) {
    const Case all{.shape = Shape{50, 192}, .x = DType::kBF16, .grain = grain};
    const Quantized together = run(context.get(), all, x);
    for (const std::int64_t row : {0, 17, 49}) {
      Quantized alone(Shape{1, 192}, DType::kE4M3, grain, 0);
      quantize(
          context.get(),
          {.x = x.view().slice(0, row, 1), .multiplier = {}, .outliers = {}, .out = alone.view, .outlier_values = {}});
      EXPECT_EQ(std::memcmp(alone.codes.data(), together.codes.data() + row * 192, 192), 0) << row;
    }
  }
}

TEST(Quantize, wrong_arguments_are_refused_by_name) {
  TestContext context;
  const TestTensor x = TestTensor::random(DType::kF32, Shape{3, 8}, 1);
  const Quantized out(Shape{3, 8}, DType::kE4M3, ScaleGrain::kRow, 0);
  QuantizeArgs args{.x = x, .multiplier = {}, .outliers = {}, .out = out.view, .outlier_values = {}};
  args.out.grain = ScaleGrain::kTensor;
  EXPECT_THROW(quantize(context.get(), args), CheckFailure);
  args.out.grain = ScaleGrain::kRow;
  const std::int32_t column = 3;
  args.outliers = TensorView(&column, DType::kI32, Shape{1});
  EXPECT_THROW(quantize(context.get(), args), CheckFailure);
}

TEST(Quantize, no_rows_are_no_work) {
  TestContext context;
  const TensorView none(static_cast<void*>(nullptr), DType::kF32, Shape{0, 8});
  quantize(context.get(), {.x = none,
                           .multiplier = {},
                           .outliers = {},
                           .out = {TensorView(static_cast<void*>(nullptr), DType::kE4M3, Shape{0, 8}),
                                   TensorView(static_cast<void*>(nullptr), DType::kF32, Shape{0}), ScaleGrain::kRow},
                           .outlier_values = {}});
}

}  // namespace
}  // namespace octavo::ops
