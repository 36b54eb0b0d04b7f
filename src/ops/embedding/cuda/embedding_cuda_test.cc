#include "ops/cuda/gpu_op_test.h"
#include "ops/embedding/embedding.h"

namespace octavo::ops {
namespace {

constexpr DType kF32 = DType::kF32;

TEST(EmbeddingCuda, equals_the_reference_bit_for_bit) {
  OCTAVO_REQUIRE_GPU();
  TestContext cpu;
  GpuContext gpu;
  for (const std::int64_t width : {1, 24, 33, 768}) {
    for (const DType dtype : {kF32, DType::kF16, DType::kBF16}) {
      for (const bool with_positions : {false, true}) {
        for (const std::int64_t padding : {0, 3}) {
          TestTensor ids(DType::kI32, {2, 9}, padding);
          for (std::int64_t b = 0; b < 2; ++b) {
            auto* row = static_cast<std::int32_t*>(Row::address(ids, {b}));
            for (int t = 0; t < 9; ++t) row[t] = static_cast<std::int32_t>((17 * b + 5 * t) % 20);
          }
          const TestTensor table = TestTensor::random(dtype, {20, width}, 1);
          const TestTensor positions = TestTensor::random(DType::kBF16, {11, width}, 2);
          const TestTensor out(kF32, {2, 9, width}, padding);
          const GpuTensor gpu_ids(gpu, ids), gpu_table(gpu, table), gpu_positions(gpu, positions), gpu_out(gpu, out);
          EmbeddingArgs args{.ids = ids, .table = table, .positions = {}, .out = out};
          if (with_positions) args.positions = positions;
          embedding(cpu.with_row("embedding", "reference"), args);
          args = {.ids = gpu_ids, .table = gpu_table, .positions = {}, .out = gpu_out};
          if (with_positions) args.positions = gpu_positions;
          embedding(gpu.get(), args);
          EXPECT_TRUE(gpu_out.download().same_bytes(out)) << width << dtype_name(dtype);
        }
      }
    }
  }
}

TEST(EmbeddingCuda, an_id_beyond_the_table_gives_nan_and_reads_nothing) {
  OCTAVO_REQUIRE_GPU();
  GpuContext gpu;
  TestTensor ids(DType::kI32, {1, 2});
  ids.view().as<std::int32_t>()[0] = -1;
  ids.view().as<std::int32_t>()[1] = 20;
  const GpuTensor there(gpu, ids), table(gpu, TestTensor::random(kF32, {20, 8}, 1)),
      out(gpu, TestTensor(kF32, {1, 2, 8}));
  embedding(gpu.get(), {.ids = there, .table = table, .positions = {}, .out = out});
  out.download().for_each_row([](const Row& row) {
    for (int i = 0; i < 8; ++i) EXPECT_TRUE(std::isnan(row[i]));
  });
}

TEST(EmbeddingCuda, timesteps_are_the_references) {
  OCTAVO_REQUIRE_GPU();
  TestContext cpu;
  GpuContext gpu;
  for (const std::int64_t width : {2, 256}) {
    const TestTensor timesteps = TestTensor::random(kF32, {57}, 1, 300.0f, 500.0f);
    const TestTensor out(kF32, {57, width});
    const GpuTensor there(gpu, timesteps), gpu_out(gpu, out);
    timestep_embedding(cpu.with_row("timestep_embedding", "reference"), {.timesteps = timesteps, .out = out});
    timestep_embedding(gpu.get(), {.timesteps = there, .out = gpu_out});
    EXPECT_TRUE(testing::expect_close(gpu_out.download(), out, testing::kOpF32));
  }
}

TEST(EmbeddingCuda, relative_bias_equals_the_reference_bit_for_bit) {
  OCTAVO_REQUIRE_GPU();
  TestContext cpu;
  GpuContext gpu;
  for (const std::int64_t tokens : {1, 2, 77, 333}) {
    for (const DType dtype : {kF32, DType::kF16, DType::kBF16}) {
      const TestTensor table = TestTensor::random(dtype, {32, 3}, 1);
      const TestTensor out(kF32, {3, tokens, tokens}, 3);
      const GpuTensor there(gpu, table), gpu_out(gpu, out);
      relative_bias(cpu.with_row("relative_bias", "reference"), {.table = table, .out = out});
      relative_bias(gpu.get(), {.table = there, .out = gpu_out});
      EXPECT_TRUE(gpu_out.download().same_bytes(out)) << tokens;
    }
  }
}

}  // namespace
}  // namespace octavo::ops
