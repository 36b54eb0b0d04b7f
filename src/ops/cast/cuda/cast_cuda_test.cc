#include <cmath>
#include <limits>

#include "ops/cast/cast.h"
#include "ops/cuda/gpu_op_test.h"

namespace octavo::ops {
namespace {

constexpr DType kDTypes[] = {DType::kF32, DType::kF16, DType::kBF16};

TEST(CastCuda, equals_the_reference_bit_for_bit) {
  OCTAVO_REQUIRE_GPU();
  TestContext cpu;
  GpuContext gpu;
  const Shape shapes[] = {{1}, {37}, {4096}, {3, 16}, {2, 3, 33}, {2, 3, 64}, {2, 2, 3, 9}, {2, 3, 4, 40}, {40, 1000}};
  for (const Shape& shape : shapes) {
    for (const DType from : kDTypes) {
      for (const DType to : kDTypes) {
        for (const std::int64_t padding : {0, 5, 8}) {  // dense, beside vectors' places, at them
          if (shape.rank() == 1 && padding > 0) continue;
          const TestTensor x = TestTensor::random(from, shape, 1, 1.0f, 0.0f, padding);
          const TestTensor out(to, shape, shape.rank() > 1 ? padding / 2 : 0);
          const GpuTensor gpu_x(gpu, x), gpu_out(gpu, out);
          cast(cpu.with_row("cast", "reference"), {.x = x, .out = out});
          cast(gpu.get(), {.x = gpu_x, .out = gpu_out});
          EXPECT_TRUE(gpu_out.download().same_bytes(out)) << shape.to_string() << padding;
        }
      }
    }
  }
}

/// Slices of middle axes: what is not to be joined is not.
TEST(CastCuda, slices_of_any_axis_are_copied_alone) {
  OCTAVO_REQUIRE_GPU();
  TestContext cpu;
  GpuContext gpu;
  for (int axis = 0; axis < 4; ++axis) {
    const TestTensor x = TestTensor::random(DType::kF32, {4, 6, 4, 16}, 1);
    const TestTensor out(DType::kBF16, {4, 6, 4, 16});
    const GpuTensor gpu_x(gpu, x), gpu_out(gpu, out);
    cast(cpu.with_row("cast", "reference"), {.x = x.view().slice(axis, 1, 2), .out = out.view().slice(axis, 2, 2)});
    cast(gpu.get(), {.x = gpu_x.view().slice(axis, 1, 2), .out = gpu_out.view().slice(axis, 2, 2)});
    EXPECT_TRUE(gpu_out.download().same_bytes(out)) << axis;
  }
}

TEST(CastCuda, ties_ends_and_nan_are_right) {
  OCTAVO_REQUIRE_GPU();
  TestContext cpu;
  GpuContext gpu;
  constexpr float kInputs[] = {1.0f + 0x1p-8f,  1.0f + 0x3p-8f,
                               3.4e38f,         65520.0f,
                               65519.0f,        0x1p-25f,
                               0x1.8p-24f,      -0.0f,
                               1e-40f,          std::numeric_limits<float>::infinity(),
                               1.0f + 0x1p-11f, std::numeric_limits<float>::quiet_NaN()};
  TestTensor x(DType::kF32, {static_cast<std::int64_t>(std::size(kInputs))});
  std::memcpy(x.view().data(), kInputs, sizeof kInputs);
  for (const DType to : kDTypes) {
    const TestTensor out(to, x.view().shape());
    const GpuTensor gpu_x(gpu, x), gpu_out(gpu, out);
    cast(cpu.with_row("cast", "reference"), {.x = x, .out = out});
    cast(gpu.get(), {.x = gpu_x, .out = gpu_out});
    EXPECT_TRUE(same_bits(gpu_out.download(), out));
  }
}

}  // namespace
}  // namespace octavo::ops
