// Ops allocate nothing once a shape has been seen.
#include <gtest/gtest.h>

#include "ops/attention/attention.h"
#include "ops/conv2d/conv2d.h"
#include "ops/group_norm/group_norm.h"
#include "ops/matmul/matmul.h"
#include "ops/op_test.h"
#include "ops/quantize/quantize.h"
#include "ops/scaled_matmul/scaled_matmul.h"
#include "testing/allocation_counter.h"

namespace octavo::ops {
namespace {

using testing::AllocationCounter;

TEST(Allocation, our_code_allocates_nothing_after_the_first_call) {
  if (!AllocationCounter::supported()) GTEST_SKIP() << "sanitizers bring their own malloc";
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    TestContext context;
    if (!context.get().traits().has_avx2) GTEST_SKIP() << "only the references run here, and they may allocate";
    if (dtype == DType::kBF16 && !context.get().traits().has_avx512_bf16) continue;
    const TestTensor tokens = TestTensor::random(dtype, Shape{2, 40, 128}, 1);
    const TestTensor weight = TestTensor::random(DType::kF16, Shape{128, 128}, 2);
    const TestTensor bias = TestTensor::random(DType::kF32, Shape{128}, 3);
    const TestTensor gate = TestTensor::random(DType::kF32, Shape{2, 128}, 3);
    const TestTensor product = TestTensor::random(DType::kF32, Shape{2, 40, 128}, 4);
    const TestTensor heads = TestTensor::random(dtype, Shape{2, 2, 40, 64}, 5);
    const TestTensor attended(dtype, Shape{2, 40, 128});
    const TestTensor picture = TestTensor::random(dtype, Shape{1, 16, 16, 32}, 6);
    const TestTensor kernel = TestTensor::random(DType::kF16, Shape{32, 32, 3, 3}, 7);
    const TestTensor doubled(dtype, Shape{1, 32, 32, 32});
    const auto packed = pack_matmul_weight(context.device(), weight, dtype);
    const auto packed_kernel = pack_conv_weight(context.device(), kernel, dtype);
    ASSERT_TRUE(packed.ok() && packed_kernel.ok());
    const MatmulArgs matmul_args{
        .x = tokens,
        .weight = *packed,
        .epilogue = {.bias = bias, .activation = Activation::kGeluTanh, .residual = product, .gate = gate},
        .out = product};
    const AttentionArgs attention_args{.q = heads, .k = heads, .v = heads, .bias = {}, .out = attended};
    const Conv2dArgs conv_args{.x = picture,
                               .weight = *packed_kernel,
                               .bias = bias.view().slice(0, 0, 32),
                               .residual = {},
                               .upsample = true,
                               .out = doubled};
    const GroupNormArgs norm_args{.x = picture,
                                  .weight = bias.view().slice(0, 0, 32),
                                  .bias = bias.view().slice(0, 0, 32),
                                  .silu = true,
                                  .out = picture};
    const TestTensor codes(DType::kE4M3, Shape{2, 40, 128});
    const TestTensor scales(DType::kF32, Shape{80});
    const TestTensor weight_codes(DType::kE4M3, Shape{128, 128});
    const TestTensor weight_scales(DType::kF32, Shape{128});
    const QuantizedView quantized_weight{weight_codes, weight_scales, ScaleGrain::kRow};
    quantize_rows(weight, quantized_weight);
    const auto packed_codes =
        pack_scaled_weight(context.device(), quantized_weight, {}, {DType::kE4M3, ScaleGrain::kRow});
    ASSERT_TRUE(packed_codes.ok());
    const QuantizeArgs quantize_args{.x = tokens,
                                     .multiplier = bias,
                                     .outliers = {},
                                     .out = {codes, scales, ScaleGrain::kRow},
                                     .outlier_values = {}};
    const ScaledMatmulArgs scaled_args{
        .x = quantize_args.out,
        .weight = *packed_codes,
        .outliers = {},
        .epilogue = {.bias = bias, .activation = Activation::kGeluTanh, .residual = product, .gate = gate},
        .out = product};
    const auto step = [&] {
      matmul(context.get(), matmul_args);
      quantize(context.get(), quantize_args);
      scaled_matmul(context.get(), scaled_args);
      attention(context.get(), attention_args);
      conv2d(context.get(), conv_args);
      group_norm(context.get(), norm_args);
    };
    step();  // builds oneDNN's kernels
    AllocationCounter counter;
    for (int i = 0; i < 3; ++i) step();
    const auto owners = counter.stop();
    for (const auto& owner : owners) {
      EXPECT_FALSE(owner.ours) << owner.count << " allocations by " << owner.module << " in " << dtype_name(dtype);
      if (!owner.ours)
        std::printf("%s: %s allocates %.1f times a step\n", std::string(dtype_name(dtype)).c_str(),
                    owner.module.c_str(), static_cast<double>(owner.count) / 3);
    }
  }
}

}  // namespace
}  // namespace octavo::ops
