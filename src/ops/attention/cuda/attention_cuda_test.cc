#include <gtest/gtest.h>

#include <cmath>

#include "ops/attention/attention.h"
#include "ops/cuda/gpu_op_test.h"

namespace octavo::ops {
namespace {

using testing::expect_close;

struct Case {
  std::int64_t batch = 1;
  std::int64_t heads = 2;
  std::int64_t queries = 10;
  std::int64_t keys = 10;
  std::int64_t width = 64;
  DType dtype = DType::kBF16;
  DType out = DType::kBF16;
  bool bias = false;
  bool causal = false;
  std::int64_t padding = 0;
  float spread = 1.0f;

  std::string name() const {
    return fmt::format("B{} H{} Sq{} Sk{} Dh{} {}->{} bias{} causal{} padding{} spread{}", batch, heads, queries, keys,
                       width, dtype_name(dtype), dtype_name(out), bias, causal, padding, spread);
  }
};

/// Every CUDA row that supports the case, against the reference in double.
int check(const Case& c) {
  GpuContext gpu(0, std::size_t{400} << 20);
  TestContext cpu;
  const TestTensor q =
      TestTensor::random(c.dtype, Shape{c.batch, c.heads, c.queries, c.width}, 1, c.spread, 0, c.padding);
  const TestTensor k = TestTensor::random(c.dtype, Shape{c.batch, c.heads, c.keys, c.width}, 2, c.spread, 0, c.padding);
  const TestTensor v = TestTensor::random(c.dtype, Shape{c.batch, c.heads, c.keys, c.width}, 3, 1, 0, c.padding);
  const TestTensor bias = TestTensor::random(DType::kF32, Shape{c.heads, c.queries, c.keys}, 4);
  const TestTensor poisoned(c.out, Shape{c.batch, c.queries, c.heads * c.width}, c.padding);
  AttentionArgs args{.q = q,
                     .k = k,
                     .v = v,
                     .bias = c.bias ? bias.view() : TensorView(),
                     .score_factor = 1.0f / std::sqrt(static_cast<float>(c.width)),
                     .causal = c.causal,
                     .out = poisoned};
  const TestTensor expected = poisoned;
  args.out = expected;
  attention(cpu.with_row("attention", "reference"), args);
  const GpuTensor gpu_q(gpu, q), gpu_k(gpu, k), gpu_v(gpu, v), gpu_bias(gpu, bias);
  args.q = gpu_q;
  args.k = gpu_k;
  args.v = gpu_v;
  if (c.bias) args.bias = gpu_bias;
  int rows = 0;
  for (const std::string_view row : {"cudnn", "unfused"}) {
    const GpuTensor out(gpu, poisoned);
    args.out = out;
    const auto supported = gpu.rows_for(attention_table(), args);
    if (std::find(supported.begin(), supported.end(), row) == supported.end()) continue;
    attention(gpu.with_row("attention", row), args);
    const TestTensor actual = out.download();
    const auto& tolerance = c.dtype == DType::kF32 ? testing::kOpF32 : testing::kOpBf16Rounded;
    EXPECT_TRUE(expect_close(actual, expected, tolerance)) << row << " " << c.name();
    attention(gpu.with_row("attention", row), args);
    EXPECT_TRUE(out.download().same_bytes(actual)) << row << " gives other bits again, or writes beside out";
    ++rows;
  }
  return rows;
}

TEST(AttentionCuda, heads_of_64_equal_the_reference_at_every_tail) {
  OCTAVO_REQUIRE_GPU();
  for (const std::int64_t queries : {2, 65, 200}) {
    for (const std::int64_t keys : {2, 129, 333}) {
      EXPECT_EQ(check({.batch = 2, .queries = queries, .keys = keys}), 2);
    }
  }
  EXPECT_EQ(check({.batch = 2, .heads = 3, .queries = 1100, .keys = 1357}), 2);
}

TEST(AttentionCuda, strided_rows_of_joined_buffers) {
  OCTAVO_REQUIRE_GPU();
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    check({.batch = 2, .queries = 33, .keys = 65, .dtype = dtype, .out = dtype, .padding = 32});
  }
}

TEST(AttentionCuda, bias_mask_and_other_widths) {
  OCTAVO_REQUIRE_GPU();
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    for (const std::int64_t tokens : {1, 7, 77, 300}) {
      check({.batch = 2, .queries = tokens, .keys = tokens, .dtype = dtype, .out = dtype, .bias = true});
      check({.batch = 2, .queries = tokens, .keys = tokens, .dtype = dtype, .out = dtype, .causal = true});
      check({.queries = tokens, .keys = tokens, .dtype = dtype, .out = DType::kF32, .bias = true, .causal = true});
    }
    for (const std::int64_t width : {16, 48, 80, 96, 128, 512}) {
      check({.batch = 2, .heads = 1, .queries = 130, .keys = 170, .width = width, .dtype = dtype, .out = dtype});
    }
  }
}

TEST(AttentionCuda, long_rows_of_scores_and_several_chunks_of_queries) {
  OCTAVO_REQUIRE_GPU();
  // 20,000 keys are more than a block of threads holds; 64 heads of 950 queries more than one chunk.
  check({.heads = 1, .queries = 70, .keys = 20000, .width = 32});
  check({.heads = 1, .queries = 70, .keys = 20000, .width = 32, .dtype = DType::kF32, .out = DType::kF32});
  check({.heads = 64, .queries = 950, .keys = 1100, .width = 8});
}

TEST(AttentionCuda, large_scores_neither_overflow_nor_lose_the_largest) {
  OCTAVO_REQUIRE_GPU();
  check({.queries = 40, .keys = 300, .dtype = DType::kF32, .out = DType::kF32, .spread = 12.0f});
}

}  // namespace
}  // namespace octavo::ops
