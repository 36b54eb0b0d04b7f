#include <gtest/gtest.h>

#include "ops/conv2d/conv2d.h"
#include "ops/cuda/gpu_op_test.h"

namespace octavo::ops {
namespace {

using testing::expect_close;

struct Case {
  std::int64_t batch = 1;
  std::int64_t height = 9;
  std::int64_t width = 7;
  std::int64_t in_channels = 32;
  std::int64_t out_channels = 32;
  int kernel = 3;
  int stride = 1;
  int pad_before = 1;
  int pad_after = 1;
  bool upsample = false;
  bool packed_to_upsample = false;
  bool bias = true;
  DType bias_dtype = DType::kBF16;  // f32 where x is
  bool residual = false;
  bool residual_is_out = false;
  DType x = DType::kF32;
  DType weight = DType::kF16;
  DType out = DType::kF32;

  std::string name() const {
    return fmt::format("B{} {}x{} {}->{} kernel{} stride{} pad{},{} upsample{}{} bias{} {} residual{}{} {}x{}->{}",
                       batch, height, width, in_channels, out_channels, kernel, stride, pad_before, pad_after, upsample,
                       packed_to_upsample ? " by phases" : "", bias, dtype_name(bias_dtype), residual,
                       residual_is_out ? " in place" : "", dtype_name(x), dtype_name(weight), dtype_name(out));
  }
};

void check(const Case& c) {
  GpuContext gpu;
  TestContext cpu;
  const int zoom = c.upsample ? 2 : 1;
  const auto side = [&](std::int64_t in) { return (in * zoom + c.pad_before + c.pad_after - c.kernel) / c.stride + 1; };
  const Shape out_shape{c.batch, side(c.height), side(c.width), c.out_channels};
  const TestTensor x = TestTensor::random(c.x, Shape{c.batch, c.height, c.width, c.in_channels}, 1);
  const TestTensor weight =
      TestTensor::random(c.weight, Shape{c.out_channels, c.in_channels, c.kernel, c.kernel}, 2, 0.1f);
  const TestTensor bias = TestTensor::random(c.x == DType::kF32 ? c.x : c.bias_dtype, Shape{c.out_channels}, 3);
  const TestTensor residual = TestTensor::random(c.out, out_shape, 4);
  const auto packed = pack_conv_weight(gpu.device(), weight, c.x, c.packed_to_upsample);
  ASSERT_TRUE(packed.ok()) << packed.status().to_string();
  const TestTensor expected(c.out, out_shape);
  Conv2dArgs args{.x = x,
                  .weight = {.plain = weight, .packed = nullptr},
                  .bias = c.bias ? bias.view() : TensorView(),
                  .residual = c.residual ? residual.view() : TensorView(),
                  .stride = c.stride,
                  .pad_before = c.pad_before,
                  .pad_after = c.pad_after,
                  .upsample = c.upsample,
                  .out = expected};
  conv2d(cpu.with_row("conv2d", "reference"), args);
  const GpuTensor gpu_x(gpu, x), gpu_bias(gpu, bias), gpu_residual(gpu, residual);
  args.x = gpu_x;
  args.weight = *packed;
  if (c.bias) args.bias = gpu_bias;
  const auto rows = gpu.rows_for(conv2d_table(), args);
  EXPECT_FALSE(rows.empty()) << c.name();
  // Summed taps are rounded to bf16 once more.
  const auto& tolerance = c.packed_to_upsample && c.x == DType::kBF16 ? testing::kOpBf16Rounded : op_tolerance(c.out);
  for (const std::string_view row : rows) {
    const GpuTensor out(gpu, c.residual_is_out ? residual : TestTensor(c.out, out_shape));
    if (c.residual) args.residual = c.residual_is_out ? out.view() : gpu_residual.view();
    args.out = out;
    conv2d(gpu.with_row("conv2d", row), args);
    EXPECT_TRUE(expect_close(out.download(), expected, tolerance)) << row << " " << c.name();
  }
}

TEST(Conv2dCuda, equals_reference_over_channels_and_sizes) {
  OCTAVO_REQUIRE_GPU();
  for (const DType x : {DType::kF32, DType::kBF16}) {
    for (const DType weight : {DType::kF32, DType::kF16, DType::kBF16}) {
      for (const auto& [in, out] : {std::pair{16, 96}, {32, 3}, {3, 16}, {5, 7}}) {
        check({.in_channels = in, .out_channels = out, .x = x, .weight = weight, .out = x});
      }
    }
    check({.in_channels = 64, .out_channels = 40, .kernel = 1, .pad_before = 0, .pad_after = 0, .x = x, .out = x});
    for (const auto& [height, width] : {std::pair{1, 1}, {2, 5}, {33, 32}}) {
      check({.batch = 2, .height = height, .width = width, .x = x, .out = x});
    }
  }
}

TEST(Conv2dCuda, equals_reference_with_stride_and_one_sided_padding) {
  OCTAVO_REQUIRE_GPU();
  for (const DType x : {DType::kF32, DType::kBF16}) {
    check({.height = 16, .width = 18, .stride = 2, .pad_before = 0, .pad_after = 1, .x = x, .out = x});
    check({.height = 17, .width = 5, .stride = 2, .pad_before = 0, .pad_after = 1, .x = x, .out = x});
  }
}

TEST(Conv2dCuda, equals_reference_with_upsample) {
  OCTAVO_REQUIRE_GPU();
  for (const bool phases : {false, true}) {
    for (const DType x : {DType::kF32, DType::kBF16}) {
      for (const std::int64_t side : {1, 2, 13}) {
        check({.batch = side == 2 ? 2 : 1,
               .height = side,
               .width = side + 1,
               .out_channels = 48,
               .upsample = true,
               .packed_to_upsample = phases,
               .residual = side == 13,
               .x = x,
               .out = x});
      }
    }
  }
}

TEST(Conv2dCuda, equals_reference_with_residual_and_output_types) {
  OCTAVO_REQUIRE_GPU();
  for (const DType x : {DType::kF32, DType::kBF16}) {
    for (const DType out : {DType::kF32, DType::kBF16}) {
      if (x == DType::kF32 && out == DType::kBF16) continue;  // no row
      for (const bool bias : {false, true}) {
        check({.bias = bias, .x = x, .out = out});
        check({.bias = bias, .residual = true, .x = x, .out = out});
        check({.bias = bias, .residual = true, .residual_is_out = true, .x = x, .out = out});
        check({.out_channels = 5, .bias = bias, .residual = true, .residual_is_out = true, .x = x, .out = out});
        if (x == DType::kBF16 && bias) {
          check({.bias_dtype = DType::kF32, .x = x, .out = out});
          check({.bias_dtype = DType::kF32, .residual = true, .x = x, .out = out});
        }
      }
    }
  }
}

TEST(Conv2dCuda, few_output_channels_equal_the_reference) {
  OCTAVO_REQUIRE_GPU();
  for (const std::int64_t in : {32, 64, 96, 128}) {
    for (const DType out : {DType::kF32, DType::kBF16}) {
      for (const auto& [height, width] : {std::pair{1, 1}, {8, 32}, {19, 45}}) {
        check({.batch = 2,
               .height = height,
               .width = width,
               .in_channels = in,
               .out_channels = 3,
               .bias_dtype = out,
               .residual = in == 64,
               .x = DType::kBF16,
               .out = out});
      }
    }
  }
  check({.height = 19, .width = 45, .out_channels = 8, .pad_before = 0, .bias = false, .x = DType::kBF16});
}

TEST(Conv2dCuda, bands_with_a_halo_equal_the_whole_picture) {
  OCTAVO_REQUIRE_GPU();
  GpuContext gpu;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const auto& [stride, upsample] : {std::pair{1, false}, {1, true}, {2, false}}) {
      const std::int64_t height = 24, width = 20, out_height = upsample ? 48 : height / stride;
      const Shape out_shape{1, out_height, upsample ? 40 : width / stride, 48};
      const TestTensor weight = TestTensor::random(DType::kF16, Shape{48, 32, 3, 3}, 2, 0.1f);
      const GpuTensor x(gpu, TestTensor::random(dtype, Shape{1, height, width, 32}, 1)),
          bias(gpu, TestTensor::random(DType::kF32, Shape{48}, 3)), whole(gpu, TestTensor(dtype, out_shape)),
          bands(gpu, TestTensor(dtype, out_shape));
      const auto packed = pack_conv_weight(gpu.device(), weight, dtype, upsample);
      ASSERT_TRUE(packed.ok());
      Conv2dArgs args{.x = x,
                      .weight = *packed,
                      .bias = bias,
                      .residual = {},
                      .stride = stride,
                      .pad_before = stride == 2 ? 0 : 1,
                      .upsample = upsample,
                      .out = whole};
      conv2d(gpu.get(), args);
      for (const auto& [first, rows] : {std::pair{0, 4}, {4, 8}, {12, 12}}) {  // rows of x
        args.halo_above = first > 0 && args.pad_before > 0;
        args.halo_below = first + rows < height;
        args.x = x.view().slice(1, first - args.halo_above, rows + args.halo_above + args.halo_below);
        args.out = bands.view().slice(1, first * out_height / height, rows * out_height / height);
        conv2d(gpu.get(), args);
      }
      EXPECT_TRUE(expect_close(bands.download(), whole.download(), op_tolerance(dtype)))
          << dtype_name(dtype) << " stride" << stride << " upsample" << upsample;
    }
  }
}

TEST(Conv2dCuda, a_captured_convolution_gives_the_same_bits) {
  OCTAVO_REQUIRE_GPU();
  GpuContext gpu;
  const TestTensor weight = TestTensor::random(DType::kF16, Shape{64, 64, 3, 3}, 2, 0.1f);
  const GpuTensor x(gpu, TestTensor::random(DType::kBF16, Shape{1, 16, 16, 64}, 1)),
      bias(gpu, TestTensor::random(DType::kF32, Shape{64}, 3)),
      out(gpu, TestTensor(DType::kBF16, Shape{1, 16, 16, 64})),
      again(gpu, TestTensor(DType::kBF16, Shape{1, 16, 16, 64}));
  const auto packed = pack_conv_weight(gpu.device(), weight, DType::kBF16);
  ASSERT_TRUE(packed.ok());
  Conv2dArgs args{.x = x, .weight = *packed, .bias = bias, .residual = {}, .out = out};
  conv2d(gpu.get(), args);
  args.out = again;
  gpu.get().stream().begin_capture();
  conv2d(gpu.get(), args);
  const auto graph = gpu.get().stream().end_capture();
  graph->launch();
  EXPECT_TRUE(again.download().same_bytes(out.download()));
}

}  // namespace
}  // namespace octavo::ops
