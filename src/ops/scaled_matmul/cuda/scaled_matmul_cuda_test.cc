// Every CUDA row of scaled_matmul against the CPU's reference, which sums in double.
#include "ops/cuda/gpu_op_test.h"
#include "ops/scaled_matmul/scaled_matmul.h"

namespace octavo::ops {
namespace {

using testing::expect_close;

constexpr ScaleGrain kGrains[] = {ScaleGrain::kTensor, ScaleGrain::kRow, ScaleGrain::kBlock128};
constexpr DType kCodes[] = {DType::kE4M3, DType::kE5M2, DType::kI8};

/// Random values as codes with scales; those of a row differ by much, so that a wrong row shows.
struct Codes {
  Codes(DType format, ScaleGrain grain, const Shape& shape, unsigned seed)
      : codes(format, shape), scales(DType::kF32, scale_shape(grain, shape.element_count() / shape[-1], shape[-1])) {
    const std::int64_t inner = shape[-1], rows = shape.element_count() / inner;
    const TestTensor values = TestTensor::random(DType::kF32, Shape{rows, inner}, seed);
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t k = 0; k < inner; ++k) {
        const Row at(values, {row});
        at.set(k, at[k] * static_cast<float>(1 + row % 5));
      }
    }
    QuantizedView flat = view(grain);
    flat.codes = flat.codes.reshape(Shape{rows, inner});
    quantize_rows(values, flat);
  }
  QuantizedView view(ScaleGrain grain) const { return {codes, scales, grain}; }
  TestTensor codes, scales;
};

struct Case {
  std::int64_t batch = 2;
  std::int64_t rows = 9;
  std::int64_t width = 96;
  std::int64_t inner = 304;
  DType x = DType::kE4M3;  // or f32 | bf16: plain
  ScaleGrain x_grain = ScaleGrain::kRow;
  DType weight = DType::kE4M3;
  ScaleGrain weight_grain = ScaleGrain::kRow;
  std::int64_t outliers = 0;
  DType out = DType::kBF16;
  DType bias = DType::kBF16;
  Activation activation = Activation::kNone;
  bool gate = false;
  bool residual = false;  // in place
  std::int64_t x_padding = 0, out_padding = 0;
  bool knows_static_scale = true;
  float quant_scale = 0.0f;  // of an out of e4m3

  std::string name() const {
    return fmt::format("{}x{}x{}x{} {} {} by {} {} outliers {} out {} bias {} act{} gate{} residual{} pad{},{}", batch,
                       rows, width, inner, dtype_name(x), scale_grain_name(x_grain), dtype_name(weight),
                       scale_grain_name(weight_grain), outliers, dtype_name(out), dtype_name(bias),
                       static_cast<int>(activation), gate, residual, x_padding, out_padding);
  }
};

void check(const Case& c, int architecture = 0) {
  TestContext cpu;
  GpuContext gpu(architecture);
  const bool plain = !is_quantized(c.x);
  const Shape x_shape{c.batch, c.rows, c.inner}, out_shape{c.batch, c.rows, c.width};
  const TestTensor plain_x = TestTensor::random(plain ? c.x : DType::kF32, x_shape, 1, 1, 0, c.x_padding);
  const Codes x(plain ? DType::kE4M3 : c.x, c.x_grain, x_shape, 1);
  const Codes weight(c.weight, c.weight_grain, Shape{c.width, c.inner}, 2);
  const TestTensor bias = TestTensor::random(c.bias, Shape{c.width}, 3);
  const TestTensor gate = TestTensor::random(DType::kF32, Shape{c.batch, c.width}, 4);
  const TestTensor outliers = TestTensor::random(DType::kBF16, Shape{c.batch, c.rows, c.outliers}, 6, 50);
  const TestTensor outlier_weight = TestTensor::random(DType::kBF16, Shape{c.width, c.outliers}, 7, 1);
  const TestTensor before = c.residual ? TestTensor::random(c.out, out_shape, 5, 9, 0, c.out_padding)
                                       : TestTensor(c.out, out_shape, c.out_padding);
  ScaledMatmulArgs args;
  args.epilogue.activation = c.activation;

  const TestTensor expected = before;
  args.x = plain ? QuantizedView{plain_x, {}, ScaleGrain::kRow} : x.view(c.x_grain);
  const TestTensor quant_scale = one_value(c.quant_scale);
  if (c.out == DType::kE4M3) args.out_quant_scale = quant_scale;
  args.weight = {.quantized = weight.view(c.weight_grain), .outlier_weight = {}, .packed = nullptr};
  if (c.outliers > 0) {
    args.outliers = outliers;
    args.weight.outlier_weight = outlier_weight;
  }
  args.epilogue.bias = bias;
  if (c.gate) args.epilogue.gate = gate;
  args.out = expected;
  if (c.residual) args.epilogue.residual = expected;
  scaled_matmul(cpu.with_row("scaled_matmul", "reference"), args);

  const GpuTensor gpu_plain(gpu, plain_x), gpu_codes(gpu, x.codes), gpu_scales(gpu, x.scales);
  const GpuTensor gpu_bias(gpu, bias), gpu_gate(gpu, gate), gpu_outliers(gpu, outliers);
  ScaledActivations activations{c.x, c.x_grain};
  if (!plain && c.x_grain == ScaleGrain::kTensor && c.knows_static_scale) activations.static_scale = gpu_scales;
  const auto packed = pack_scaled_weight(gpu.device(), weight.view(c.weight_grain),
                                         c.outliers > 0 ? outlier_weight.view() : TensorView(), activations);
  ASSERT_TRUE(packed.ok()) << packed.status().to_string();
  args.x = plain ? QuantizedView{gpu_plain, {}, ScaleGrain::kRow} : QuantizedView{gpu_codes, gpu_scales, c.x_grain};
  const GpuTensor gpu_quant_scale(gpu, quant_scale);
  if (c.out == DType::kE4M3) args.out_quant_scale = gpu_quant_scale;
  args.weight = *packed;
  if (c.outliers > 0) args.outliers = gpu_outliers;
  args.epilogue.bias = gpu_bias;
  if (c.gate) args.epilogue.gate = gpu_gate;
  const auto rows = gpu.rows_for(scaled_matmul_table(), args);
  ASSERT_FALSE(rows.empty());
  const auto is_float8 = [](DType dtype) { return dtype == DType::kE4M3 || dtype == DType::kE5M2; };
  const testing::Tolerance& tolerance = c.out == DType::kE4M3 ? testing::kOpFloat8Stored
                                        : is_float8(c.x) && is_float8(c.weight) && architecture != 80
                                            ? testing::kOpFloat8Product
                                            : op_tolerance(c.out);
  for (const std::string_view row : rows) {
    const GpuTensor out(gpu, before);
    args.out = out;
    if (c.residual) args.epilogue.residual = out;
    scaled_matmul(gpu.with_row("scaled_matmul", row), args);
    EXPECT_TRUE(expect_close(out.download(), expected, tolerance)) << row << " sm " << architecture << " " << c.name();
  }
}

TEST(ScaledMatmulCuda, equals_reference_over_formats_and_grains) {
  OCTAVO_REQUIRE_GPU();
  for (const int architecture : {0, 89, 80}) {
    for (const DType x : {DType::kE4M3, DType::kE5M2, DType::kI8, DType::kF32, DType::kBF16}) {
      for (const ScaleGrain x_grain : kGrains) {
        if (!is_quantized(x) && x_grain != ScaleGrain::kRow) continue;
        for (const DType weight : kCodes) {
          for (const ScaleGrain weight_grain : kGrains) {
            check({.x = x, .x_grain = x_grain, .weight = weight, .weight_grain = weight_grain}, architecture);
          }
        }
      }
    }
  }
}

TEST(ScaledMatmulCuda, equals_reference_over_shapes) {
  OCTAVO_REQUIRE_GPU();
  struct {
    std::int64_t rows, width, inner;
  } constexpr kShapes[] = {{1, 64, 64},    {7, 96, 128},   {333, 80, 112}, {666, 48, 208},
                           {1000, 32, 64}, {8, 256, 2432}, {64, 136, 192}, {65, 128, 64},
                           {7, 37, 53},    {33, 4, 100},   {1, 1, 1},      {20, 130, 192}};
  for (const auto& shape : kShapes) {
    for (const DType x : {DType::kE4M3, DType::kI8, DType::kF32, DType::kBF16}) {
      for (const DType out : {DType::kF32, DType::kBF16}) {
        check({.batch = 1,
               .rows = shape.rows,
               .width = shape.width,
               .inner = shape.inner,
               .x = x,
               .weight = x == DType::kE4M3 || x == DType::kBF16 ? DType::kE4M3 : DType::kI8,
               .out = out,
               .bias = out});
      }
    }
  }
}

TEST(ScaledMatmulCuda, equals_reference_with_every_epilogue) {
  OCTAVO_REQUIRE_GPU();
  for (const int architecture : {0, 89}) {
    for (const DType x : {DType::kE4M3, DType::kF32, DType::kBF16}) {
      for (const ScaleGrain grain : {ScaleGrain::kRow, ScaleGrain::kTensor}) {
        if (!is_quantized(x) && grain == ScaleGrain::kTensor) continue;
        for (const Activation activation : {Activation::kNone, Activation::kSilu, Activation::kGeluTanh,
                                            Activation::kGeluErf, Activation::kQuickGelu}) {
          for (const DType out : {DType::kF32, DType::kBF16}) {
            for (const DType bias : {DType::kF32, DType::kBF16}) {
              const Case plain{.inner = 128,
                               .x = x,
                               .x_grain = grain,
                               .weight_grain = grain,
                               .out = out,
                               .bias = bias,
                               .activation = activation};
              check(plain, architecture);
              Case with = plain;
              with.residual = true;
              check(with, architecture);
              with.gate = true;
              check(with, architecture);
            }
          }
        }
      }
    }
  }
}

TEST(ScaledMatmulCuda, split_columns_are_added) {
  OCTAVO_REQUIRE_GPU();
  for (const DType x : {DType::kE4M3, DType::kI8, DType::kF32, DType::kBF16}) {
    for (const std::int64_t outliers : {1, 5, 32}) {
      for (const ScaleGrain grain : {ScaleGrain::kRow, ScaleGrain::kBlock128}) {
        check({.x = x, .x_grain = grain, .weight = x == DType::kI8 ? DType::kI8 : DType::kE4M3, .outliers = outliers});
        check({.x = x, .x_grain = grain, .outliers = outliers, .activation = Activation::kGeluTanh, .residual = true});
      }
    }
  }
}

TEST(ScaledMatmulCuda, one_scale_of_x_serves_whether_or_not_it_was_known) {
  OCTAVO_REQUIRE_GPU();
  for (const bool known : {false, true}) {
    for (const ScaleGrain weight_grain : {ScaleGrain::kTensor, ScaleGrain::kRow}) {
      check({.rows = 100,
             .x_grain = ScaleGrain::kTensor,
             .weight_grain = weight_grain,
             .activation = Activation::kGeluTanh,
             .knows_static_scale = known});
    }
  }
}

TEST(ScaledMatmulCuda, codes_of_a_static_scale_equal_the_reference) {
  OCTAVO_REQUIRE_GPU();
  for (const int architecture : {0, 89, 80}) {
    for (const DType x : {DType::kE4M3, DType::kI8, DType::kBF16, DType::kF32}) {
      for (const ScaleGrain grain : {ScaleGrain::kTensor, ScaleGrain::kRow}) {
        for (const std::int64_t rows : {9, 70, 1100}) {
          for (const Activation activation : {Activation::kNone, Activation::kGeluTanh}) {
            Case c{.rows = rows,
                   .x = x,
                   .x_grain = is_quantized(x) ? grain : ScaleGrain::kRow,
                   .weight_grain = grain,
                   .out = DType::kE4M3,
                   .activation = activation,
                   .quant_scale = 12.0f};  // the largest saturate
            check(c, architecture);
            c.out_padding = 16;
            c.gate = activation == Activation::kNone;
            check(c, architecture);
          }
        }
      }
    }
  }
}

TEST(ScaledMatmulCuda, codes_of_a_large_product_are_its_values_rounded) {
  OCTAVO_REQUIRE_GPU();
  GpuContext gpu;
  constexpr std::int64_t kRows = 2048, kWidth = 512, kInner = 256;
  const Codes x(DType::kE4M3, ScaleGrain::kTensor, Shape{kRows, kInner}, 1);
  const Codes weight(DType::kE4M3, ScaleGrain::kTensor, Shape{kWidth, kInner}, 2);
  const GpuTensor codes(gpu, x.codes), scales(gpu, x.scales), quant_scale(gpu, one_value(10.0f));
  const auto packed = pack_scaled_weight(gpu.device(), weight.view(ScaleGrain::kTensor), {},
                                         {DType::kE4M3, ScaleGrain::kTensor, scales});
  ASSERT_TRUE(packed.ok());
  EXPECT_TRUE(packed->one_scale);
  const GpuTensor in_f32(gpu, TestTensor(DType::kF32, Shape{kRows, kWidth})),
      in_codes(gpu, TestTensor(DType::kE4M3, Shape{kRows, kWidth}));
  ScaledMatmulArgs args;
  args.x = {codes, scales, ScaleGrain::kTensor};
  args.weight = *packed;
  args.out = in_f32;
  scaled_matmul(gpu.get(), args);
  args.out = in_codes;
  args.out_quant_scale = quant_scale;
  scaled_matmul(gpu.get(), args);
  const TestTensor sums = in_f32.download(), found = in_codes.download(), expected(DType::kE4M3, Shape{kRows, kWidth});
  for (std::int64_t row = 0; row < kRows; ++row) {
    for (std::int64_t n = 0; n < kWidth; ++n) Row(expected, {row}).set(n, Row(sums, {row})[n] * 10.0f);
  }
  EXPECT_TRUE(expect_close(found, expected, testing::kOpFloat8Stored));
}

TEST(ScaledMatmulCuda, rows_may_be_strided) {
  OCTAVO_REQUIRE_GPU();
  for (const DType x : {DType::kE4M3, DType::kF32, DType::kBF16}) {
    for (const ScaleGrain grain : {ScaleGrain::kRow, ScaleGrain::kBlock128}) {
      for (const std::int64_t out_padding : {0, 16, 3}) {
        check({.rows = 70,
               .inner = 256,
               .x = x,
               .weight_grain = grain,
               .x_padding = is_quantized(x) ? 0 : 16,
               .out_padding = out_padding});
      }
    }
  }
}

TEST(ScaledMatmulCuda, what_is_not_finite_in_a_row_stays_in_that_row) {
  OCTAVO_REQUIRE_GPU();
  GpuContext gpu;
  const Codes weight(DType::kE4M3, ScaleGrain::kRow, Shape{16, 64}, 2);
  Codes codes(DType::kE4M3, ScaleGrain::kRow, Shape{3, 64}, 1);
  codes.scales.view().f32()[1] = std::numeric_limits<float>::quiet_NaN();
  const TestTensor plain = TestTensor::random(DType::kF32, Shape{3, 64}, 1);
  plain.view().f32()[64 + 5] = std::numeric_limits<float>::quiet_NaN();
  const GpuTensor gpu_codes(gpu, codes.codes), gpu_scales(gpu, codes.scales), gpu_plain(gpu, plain);
  for (const bool quantized : {true, false}) {
    const auto packed = pack_scaled_weight(gpu.device(), weight.view(ScaleGrain::kRow), {},
                                           {quantized ? DType::kE4M3 : DType::kF32, ScaleGrain::kRow});
    ASSERT_TRUE(packed.ok());
    ScaledMatmulArgs args;
    args.x = quantized ? QuantizedView{gpu_codes, gpu_scales, ScaleGrain::kRow}
                       : QuantizedView{gpu_plain, {}, ScaleGrain::kRow};
    args.weight = *packed;
    const GpuTensor out(gpu, TestTensor(DType::kF32, Shape{3, 16}));
    args.out = out;
    for (const std::string_view row : gpu.rows_for(scaled_matmul_table(), args)) {
      scaled_matmul(gpu.with_row("scaled_matmul", row), args);
      const TestTensor found = out.download();
      for (std::int64_t i = 0; i < 3 * 16; ++i) EXPECT_EQ(std::isnan(found.view().f32()[i]), i / 16 == 1) << row << i;
    }
  }
}

TEST(ScaledMatmulCuda, a_weight_on_the_gpu_is_packed_like_one_in_host_memory) {
  OCTAVO_REQUIRE_GPU();
  GpuContext gpu;
  const Codes weight(DType::kI8, ScaleGrain::kRow, Shape{48, 64}, 2);
  const GpuTensor codes(gpu, weight.codes), scales(gpu, weight.scales);
  const ScaledActivations activations{DType::kF32, ScaleGrain::kRow};
  const auto from_host = pack_scaled_weight(gpu.device(), weight.view(ScaleGrain::kRow), {}, activations);
  const auto from_gpu = pack_scaled_weight(gpu.device(), {codes, scales, ScaleGrain::kRow}, {}, activations);
  ASSERT_TRUE(from_host.ok() && from_gpu.ok());
  EXPECT_EQ(from_gpu->packed->byte_count(), 48u * 64u + 48u * sizeof(float));
  const GpuTensor x(gpu, TestTensor::random(DType::kF32, Shape{9, 64}, 1));
  std::vector<TestTensor> results;
  for (const auto& packed : {from_host, from_gpu}) {
    const GpuTensor out(gpu, TestTensor(DType::kF32, Shape{9, 48}));
    ScaledMatmulArgs args;
    args.x = {x, {}, ScaleGrain::kRow};
    args.weight = *packed;
    args.out = out;
    scaled_matmul(gpu.get(), args);
    results.push_back(out.download());
  }
  EXPECT_TRUE(same_bits(results[0], results[1]));
}

}  // namespace
}  // namespace octavo::ops
