// cuDNN's attention in E4M3 against the CPU's reference.
#include <gtest/gtest.h>

#include <cmath>

#include "ops/attention/attention.h"
#include "ops/cuda/gpu_op_test.h"

namespace octavo::ops {
namespace {

struct Case {
  std::int64_t batch, heads, queries, keys, width;
  std::int64_t padding = 0;  // of the operands' rows and out's
};

TEST(AttentionCudnnFp8, equals_the_reference_but_for_weights_in_eight_bits) {
  OCTAVO_REQUIRE_GPU();
  if (test_gpu()->traits().compute_capability != 90) GTEST_SKIP() << "no GPU of compute capability 9.0";
  for (const Case& c : {Case{1, 1, 64, 64, 64}, Case{2, 3, 70, 200, 64}, Case{1, 2, 372, 410, 128},
                        Case{2, 2, 130, 333, 64, 16}, Case{1, 2, 200, 4429, 64}}) {
    TestContext cpu;
    GpuContext gpu;
    const Shape q_shape{c.batch, c.heads, c.queries, c.width}, k_shape{c.batch, c.heads, c.keys, c.width},
        out_shape{c.batch, c.queries, c.heads * c.width};
    const TestTensor q = TestTensor::random(DType::kE4M3, q_shape, 1, 4.0f, 0, c.padding),
                     k = TestTensor::random(DType::kE4M3, k_shape, 2, 4.0f, 0, c.padding),
                     v = TestTensor::random(DType::kE4M3, k_shape, 3, 60.0f, 0.0f, c.padding),
                     quant_scale = one_value(20.0f * std::sqrt(static_cast<float>(c.keys))),
                     expected(DType::kE4M3, out_shape, c.padding);
    AttentionArgs args{.q = q, .k = k, .v = v, .bias = {}, .score_factor = 0.125f / 16};
    args.value_factor = 0.05f;
    args.out = expected;
    args.out_quant_scale = quant_scale;
    attention(cpu.with_row("attention", "reference"), args);
    const GpuTensor gpu_q(gpu, q), gpu_k(gpu, k), gpu_v(gpu, v), gpu_quant_scale(gpu, quant_scale),
        out(gpu, TestTensor(DType::kE4M3, out_shape, c.padding));
    args.q = gpu_q;
    args.k = gpu_k;
    args.v = gpu_v;
    args.out = out;
    args.out_quant_scale = gpu_quant_scale;
    EXPECT_EQ(gpu.rows_for(attention_table(), args), std::vector<std::string_view>{"cudnn_fp8"});
    for (int run = 0; run < 2; ++run) {  // with what is chosen, and then what is remembered
      attention(gpu.with_row("attention", "cudnn_fp8"), args);
      EXPECT_TRUE(testing::expect_close(out.download(), expected, testing::kOpFloat8Weights))
          << fmt::format("B{} H{} Sq{} Sk{} of {} padding {}", c.batch, c.heads, c.queries, c.keys, c.width, c.padding);
    }
  }
}

}  // namespace
}  // namespace octavo::ops
