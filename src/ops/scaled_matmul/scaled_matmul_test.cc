#include "ops/scaled_matmul/scaled_matmul.h"

#include <gtest/gtest.h>

#include "ops/op_test.h"
#include "ops/quantize/quantize.h"

namespace octavo::ops {
namespace {

using testing::expect_close;
using testing::kExact;

constexpr ScaleGrain kGrains[] = {ScaleGrain::kTensor, ScaleGrain::kRow, ScaleGrain::kBlock128};

/// Random values as codes with scales.
class Codes {
 public:
  Codes(DType format, ScaleGrain grain, const Shape& shape, unsigned seed)
      : codes_(static_cast<std::size_t>(shape.element_count())) {
    const std::int64_t inner = shape[-1];
    const std::int64_t rows = shape.element_count() / inner;
    const TestTensor values = TestTensor::random(DType::kF32, Shape{rows, inner}, seed);
    scales_.resize(static_cast<std::size_t>(scale_shape(grain, rows, inner).element_count()));
    view_ = {TensorView(codes_.data(), format, Shape{rows, inner}),
             TensorView(scales_.data(), DType::kF32, scale_shape(grain, rows, inner)), grain};
    quantize_rows(values, view_);
    view_.codes = TensorView(codes_.data(), format, shape);
  }
  const QuantizedView& view() const { return view_; }

 private:
  std::vector<std::byte> codes_;
  std::vector<float> scales_;
  QuantizedView view_;
};

struct Case {
  std::int64_t batch = 2;
  std::int64_t rows = 9;
  std::int64_t width = 96;
  std::int64_t inner = 300;
  DType x = DType::kE4M3;  // or f32 | bf16: plain
  ScaleGrain x_grain = ScaleGrain::kRow;
  DType weight = DType::kE4M3;
  ScaleGrain weight_grain = ScaleGrain::kRow;
  std::int64_t outliers = 0;
  DType out = DType::kF32;
  Activation activation = Activation::kNone;
  bool gated = false;  // residual in place
  std::int64_t x_padding = 0;

  std::string name() const {
    return fmt::format("{}x{}x{}x{} {} {} by {} {} outliers {}", batch, rows, width, inner, dtype_name(x),
                       scale_grain_name(x_grain), dtype_name(weight), scale_grain_name(weight_grain), outliers);
  }
};

TestTensor run(ExecutionContext& context, const Case& c, const ScaledMatmulArgs& args) {
  const Shape shape{c.batch, c.rows, c.width};
  TestTensor out = c.gated ? TestTensor::random(DType::kF32, shape, 5, 1, 0, 16) : TestTensor(c.out, shape);
  ScaledMatmulArgs with_out = args;
  with_out.out = out;
  if (c.gated) with_out.epilogue.residual = out;
  scaled_matmul(context, with_out);
  return out;
}

void check(const Case& c) {
  TestContext context(1);
  const Shape x_shape{c.batch, c.rows, c.inner};
  const bool plain = !is_quantized(c.x);
  const TestTensor plain_x = TestTensor::random(plain ? c.x : DType::kF32, x_shape, 1, 1, 0, c.x_padding);
  const Codes x(plain ? DType::kE4M3 : c.x, c.x_grain, x_shape, 1);
  const Codes weight(c.weight, c.weight_grain, Shape{c.width, c.inner}, 2);
  const TestTensor bias = TestTensor::random(DType::kF32, Shape{c.width}, 3);
  const TestTensor gate = TestTensor::random(DType::kF32, Shape{c.batch, c.width}, 4);
  const TestTensor outliers = TestTensor::random(DType::kBF16, Shape{c.batch, c.rows, c.outliers}, 6, 50);
  const TestTensor outlier_weight = TestTensor::random(DType::kBF16, Shape{c.width, c.outliers}, 7, 1);
  const auto packed = pack_scaled_weight(context.device(), weight.view(),
                                         c.outliers > 0 ? outlier_weight.view() : TensorView(), {c.x, c.x_grain});
  ASSERT_TRUE(packed.ok());
  ScaledMatmulArgs args;
  args.x = plain ? QuantizedView{plain_x, {}, ScaleGrain::kRow} : x.view();
  args.weight = *packed;
  if (c.outliers > 0) args.outliers = outliers;
  args.epilogue.bias = bias;
  args.epilogue.activation = c.activation;
  if (c.gated) args.epilogue.gate = gate;
  const TestTensor expected = run(context.with_row("scaled_matmul", "reference"), c, args);
  const TestTensor actual = run(context.with_row("scaled_matmul", ""), c, args);
  EXPECT_TRUE(expect_close(actual, expected, op_tolerance(actual.view().dtype()))) << c.name();
}

TEST(ScaledMatmul, equals_reference_over_formats_and_grains) {
  for (const DType x : {DType::kE4M3, DType::kE5M2, DType::kI8, DType::kF32, DType::kBF16}) {
    for (const ScaleGrain x_grain : kGrains) {
      for (const DType weight : {DType::kE4M3, DType::kE5M2, DType::kI8}) {
        for (const ScaleGrain weight_grain : kGrains) {
          check({.x = x, .x_grain = x_grain, .weight = weight, .weight_grain = weight_grain});
        }
      }
    }
  }
}

TEST(ScaledMatmul, equals_reference_over_shapes) {
  for (const std::int64_t width : {1, 37, 64, 192}) {
    for (const std::int64_t inner : {1, 17, 128, 129, 384}) {
      for (const std::int64_t rows : {1, 2, 33}) {
        for (const ScaleGrain grain : {ScaleGrain::kRow, ScaleGrain::kBlock128}) {
          check({.rows = rows, .width = width, .inner = inner, .x_grain = grain});
        }
      }
    }
  }
}

TEST(ScaledMatmul, equals_reference_with_split_columns_and_epilogues) {
  for (const DType x : {DType::kE4M3, DType::kF32, DType::kBF16}) {
    for (const std::int64_t outliers : {0, 1, 5, 32}) {
      for (const Activation activation : {Activation::kNone, Activation::kGeluTanh}) {
        for (const ScaleGrain grain : {ScaleGrain::kRow, ScaleGrain::kBlock128}) {
          check({.x = x, .x_grain = grain, .outliers = outliers, .activation = activation});
          check({.x = x, .x_grain = grain, .outliers = outliers, .activation = activation, .gated = true});
          check({.x = x, .x_grain = grain, .outliers = outliers, .out = DType::kBF16, .activation = activation});
        }
      }
    }
  }
}

TEST(ScaledMatmul, plain_rows_may_be_strided) {
  for (const DType x : {DType::kF32, DType::kBF16}) {
    for (const ScaleGrain grain : {ScaleGrain::kRow, ScaleGrain::kBlock128}) {
      check({.x = x, .weight_grain = grain, .x_padding = 16});
    }
  }
}

TEST(ScaledMatmul, a_row_does_not_depend_on_how_many_there_are) {
  TestContext context;
  constexpr std::int64_t kRows = 1100;  // more than one chunk
  for (const ScaleGrain grain : {ScaleGrain::kRow, ScaleGrain::kBlock128}) {
    const Codes x(DType::kE4M3, grain, Shape{kRows, 192}, 1);
    const Codes weight(DType::kE4M3, ScaleGrain::kRow, Shape{100, 192}, 2);
    const TestTensor outliers = TestTensor::random(DType::kBF16, Shape{kRows, 3}, 6, 50);
    const TestTensor outlier_weight = TestTensor::random(DType::kBF16, Shape{100, 3}, 7, 1);
    const auto packed = pack_scaled_weight(context.device(), weight.view(), outlier_weight, {DType::kE4M3, grain});
    ASSERT_TRUE(packed.ok());
    const auto rows_alone = [&](std::int64_t begin, std::int64_t rows, const TestTensor& out) {
      ScaledMatmulArgs args;
      args.x = x.view();
      args.x.codes = args.x.codes.slice(0, begin, rows);
      args.x.dequant_scale = args.x.dequant_scale.slice(0, begin, rows);
      args.weight = *packed;
      args.outliers = outliers.view().slice(0, begin, rows);
      args.out = out;
      scaled_matmul(context.with_row("scaled_matmul", ""), args);
    };
    if (!context.get().traits().has_avx2) GTEST_SKIP() << "the reference takes an output at a time";
    const TestTensor all(DType::kF32, Shape{kRows, 100});
    rows_alone(0, kRows, all);
    for (const std::int64_t rows : {1, 2, 7, 33, 1024, 1099}) {
      const std::int64_t begin = kRows - rows;
      const TestTensor part(DType::kF32, Shape{rows, 100});
      rows_alone(begin, rows, part);
      EXPECT_TRUE(expect_close(part, all.view().slice(0, begin, rows), kExact)) << rows;
    }
  }
}

TEST(ScaledMatmul, codes_stay_eight_bits_in_memory) {
  TestContext context;
  const Codes weight(DType::kE4M3, ScaleGrain::kRow, Shape{128, 256}, 2);
  for (const DType x : {DType::kE4M3, DType::kF32}) {
    const auto packed = pack_scaled_weight(context.device(), weight.view(), {}, {x, ScaleGrain::kRow});
    ASSERT_TRUE(packed.ok());
    ASSERT_EQ(packed->packed != nullptr, context.get().traits().has_avx2);  // below, only the reference runs
    if (packed->packed == nullptr) GTEST_SKIP() << "no AVX2";
    EXPECT_EQ(packed->packed->byte_count(), 128u * 256u + 128u * sizeof(float));
  }
}

TEST(ScaledMatmul, codes_that_rounding_never_makes_stay_what_they_are) {
  TestContext context;
  constexpr std::int64_t kSide = 64;
  const TestTensor x(DType::kF32, Shape{1, kSide});
  std::fill_n(x.view().f32(), kSide, 0.0f);
  x.view().f32()[0] = 1.0f;
  std::vector<float> scales(kSide, 0.5f);
  std::vector<std::byte> codes(kSide * kSide);
  codes[0] = std::byte{0x80};  // -128
  const QuantizedView weight{TensorView(codes.data(), DType::kI8, Shape{kSide, kSide}),
                             TensorView(scales.data(), DType::kF32, Shape{kSide}), ScaleGrain::kRow};
  const auto packed = pack_scaled_weight(context.device(), weight, {}, {DType::kF32, ScaleGrain::kRow});
  ASSERT_TRUE(packed.ok());
  for (const char* row : {"reference", ""}) {
    const TestTensor out(DType::kF32, Shape{1, kSide});
    ScaledMatmulArgs args;
    args.x = QuantizedView{x, {}, ScaleGrain::kRow};
    args.weight = *packed;
    args.out = out;
    scaled_matmul(context.with_row("scaled_matmul", row), args);
    EXPECT_EQ(out.view().f32()[0], -64.0f) << row;
    EXPECT_EQ(out.view().f32()[1], 0.0f) << row;
  }
}

TEST(ScaledMatmul, what_is_not_finite_in_a_row_makes_that_row_not_a_number) {
  TestContext context;
  const TestTensor x = TestTensor::random(DType::kF32, Shape{3, 64}, 1);
  x.view().f32()[64 + 5] = std::numeric_limits<float>::infinity();
  std::vector<std::byte> codes(3 * 64);
  std::vector<float> scales(3);
  const QuantizedView view{TensorView(codes.data(), DType::kE4M3, Shape{3, 64}),
                           TensorView(scales.data(), DType::kF32, Shape{3}), ScaleGrain::kRow};
  quantize(context.get(), {.x = x, .multiplier = {}, .outliers = {}, .out = view, .outlier_values = {}});
  const Codes weight(DType::kE4M3, ScaleGrain::kRow, Shape{16, 64}, 2);
  const auto packed = pack_scaled_weight(context.device(), weight.view(), {}, {DType::kE4M3, ScaleGrain::kRow});
  ASSERT_TRUE(packed.ok());
  const TestTensor out(DType::kF32, Shape{3, 16});
  ScaledMatmulArgs args;
  args.x = view;
  args.weight = *packed;
  args.out = out;
  scaled_matmul(context.get(), args);
  for (std::int64_t i = 0; i < 3 * 16; ++i) EXPECT_EQ(std::isnan(out.view().f32()[i]), i / 16 == 1) << i;
}

TEST(ScaledMatmul, codes_are_the_values_times_their_scale_rounded) {
  TestContext context;
  const Codes x(DType::kE4M3, ScaleGrain::kTensor, Shape{5, 96}, 1);
  const Codes weight(DType::kE4M3, ScaleGrain::kTensor, Shape{24, 96}, 2);
  const TestTensor values(DType::kF32, Shape{5, 24}), codes(DType::kE4M3, Shape{5, 24}),
      expected(DType::kE4M3, Shape{5, 24}), quant_scale = one_value(40.0f);
  ScaledMatmulArgs args;
  args.x = x.view();
  const auto packed = pack_scaled_weight(context.device(), weight.view(), {}, {DType::kE4M3, ScaleGrain::kTensor});
  ASSERT_TRUE(packed.ok());
  EXPECT_TRUE(packed->one_scale);
  args.weight = *packed;
  args.epilogue.activation = Activation::kGeluTanh;
  args.out = values;
  scaled_matmul(context.with_row("scaled_matmul", "reference"), args);
  args.out = codes;
  EXPECT_THROW(scaled_matmul(context.get(), args), CheckFailure);  // without their scale
  args.out_quant_scale = quant_scale;
  scaled_matmul(context.with_row("scaled_matmul", ""), args);
  std::int64_t saturated = 0;
  for (std::int64_t m = 0; m < 5; ++m) {
    for (std::int64_t n = 0; n < 24; ++n) {
      const float value = Row(values, {m})[n] * 40.0f;
      Row(expected, {m}).set(n, value);
      saturated += value > kE4M3Largest ? 1 : 0;
    }
  }
  EXPECT_GT(saturated, 0);
  EXPECT_TRUE(expect_close(codes, expected, testing::kOpFloat8Stored));
  args.epilogue.residual = codes;  // which codes have not
  EXPECT_THROW(scaled_matmul(context.get(), args), CheckFailure);
}

TEST(ScaledMatmul, wrong_arguments_are_refused_by_name) {
  TestContext context;
  const Codes x(DType::kE4M3, ScaleGrain::kRow, Shape{3, 8}, 1);
  const Codes weight(DType::kE4M3, ScaleGrain::kRow, Shape{4, 8}, 2);
  const TestTensor out(DType::kF32, Shape{3, 4});
  ScaledMatmulArgs args;
  args.x = x.view();
  args.weight.quantized = weight.view();
  args.out = out;
  scaled_matmul(context.get(), args);
  args.x.dequant_scale = weight.view().dequant_scale;  // four scales for three rows
  EXPECT_THROW(scaled_matmul(context.get(), args), CheckFailure);
  args.x = {x.view().codes, {}, ScaleGrain::kRow};
  EXPECT_THROW(scaled_matmul(context.get(), args), CheckFailure);
  args.x = x.view();
  args.outliers = out;
  EXPECT_THROW(scaled_matmul(context.get(), args), CheckFailure);
}

}  // namespace
}  // namespace octavo::ops
