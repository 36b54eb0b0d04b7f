#include "ops/cuda/gpu_op_test.h"
#include "ops/patch/patch.h"

namespace octavo::ops {
namespace {

constexpr DType kF32 = DType::kF32;

struct PatchShape {
  std::int64_t batch, channels, height, width;
};
constexpr PatchShape kShapes[] = {{1, 1, 2, 2}, {2, 16, 6, 10}, {3, 16, 48, 24}, {4, 4, 2, 64}};

TEST(PatchCuda, patchify_and_unpatchify_equal_the_reference_bit_for_bit) {
  OCTAVO_REQUIRE_GPU();
  TestContext cpu;
  GpuContext gpu;
  for (const PatchShape& s : kShapes) {
    const std::int64_t count = s.height / 2 * (s.width / 2);
    for (const std::int64_t repeats : {1, 2}) {  // two: guidance's branches share the latents
      for (const DType dtype : {kF32, DType::kBF16}) {
        const TestTensor latents = TestTensor::random(kF32, {s.batch, s.channels, s.height, s.width}, 1, 1, 0, 4);
        const TestTensor out(dtype, {repeats * s.batch, count, 4 * s.channels}, 3);
        const GpuTensor there(gpu, latents), gpu_out(gpu, out);
        patchify(cpu.with_row("patchify", "reference"), {.latents = latents, .out = out});
        patchify(gpu.get(), {.latents = there, .out = gpu_out});
        EXPECT_TRUE(gpu_out.download().same_bytes(out));
      }
    }
    const TestTensor tokens = TestTensor::random(kF32, {s.batch, count, 4 * s.channels}, 1, 1, 0, 5);
    const TestTensor out(kF32, {s.batch, s.channels, s.height, s.width}, 2);
    const GpuTensor there(gpu, tokens), gpu_out(gpu, out);
    unpatchify(cpu.with_row("unpatchify", "reference"), {.tokens = tokens, .out = out});
    unpatchify(gpu.get(), {.tokens = there, .out = gpu_out});
    EXPECT_TRUE(gpu_out.download().same_bytes(out));
  }
}

TEST(PatchCuda, add_positions_equals_the_reference_bit_for_bit) {
  OCTAVO_REQUIRE_GPU();
  TestContext cpu;
  GpuContext gpu;
  struct Crop {
    int rows, columns;
  };
  for (const Crop& crop : {Crop{1, 1}, Crop{3, 5}, Crop{12, 4}, Crop{12, 12}}) {
    for (const std::int64_t width : {1, 24, 70}) {
      for (const DType dtype : {kF32, DType::kF16, DType::kBF16}) {
        for (const DType x_dtype : {kF32, DType::kBF16}) {
          for (const std::int64_t padding : {0, 3}) {
            const TestTensor table = TestTensor::random(dtype, {12, 12, width}, 1);
            const Shape shape{2, std::int64_t{crop.rows} * crop.columns, width};
            const TestTensor x = TestTensor::random(x_dtype, shape, 2, 1, 0, padding);
            const GpuTensor there(gpu, x), gpu_table(gpu, table);
            add_positions(cpu.with_row("add_positions", "reference"),
                          {.x = x, .table = table, .rows = crop.rows, .columns = crop.columns});
            add_positions(gpu.get(), {.x = there, .table = gpu_table, .rows = crop.rows, .columns = crop.columns});
            EXPECT_TRUE(there.download().same_bytes(x)) << width << dtype_name(dtype);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace octavo::ops
