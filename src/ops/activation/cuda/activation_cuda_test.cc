#include "ops/activation/activation.h"
#include "ops/cuda/gpu_op_test.h"
#include "ops/quantize/quantize.h"

namespace octavo::ops {
namespace {

constexpr DType kF32 = DType::kF32;
constexpr DType kBF16 = DType::kBF16;
constexpr Activation kAll[] = {Activation::kNone, Activation::kSilu, Activation::kGeluTanh, Activation::kGeluErf,
                               Activation::kQuickGelu};
// Whole vectors and not; more than a block's threads hold.
const Shape kShapes[] = {{1, 1}, {3, 17}, {2, 512}, {2, 3, 64}, {2, 2, 530}, {5, 9728}, {2, 20001}};

TEST(ActivationCuda, equals_the_reference) {
  OCTAVO_REQUIRE_GPU();
  TestContext cpu;
  GpuContext gpu;
  for (const Shape& shape : kShapes) {
    for (const Activation kind : kAll) {
      for (const DType in_dtype : {kF32, kBF16}) {
        for (const DType out_dtype : {kF32, kBF16}) {
          for (const bool gated : {false, true}) {
            for (const std::int64_t padding : {0, 3}) {
              const TestTensor x = TestTensor::random(in_dtype, shape, 1, 3.0f, 0.0f, padding);
              const TestTensor multiplier = TestTensor::random(in_dtype, shape, 2, 1.0f, 0.0f, padding);
              const TestTensor out(out_dtype, shape, padding);
              const GpuTensor gpu_x(gpu, x), gpu_multiplier(gpu, multiplier), gpu_out(gpu, out);
              ActivationArgs args{.activation = kind, .x = x, .multiplier = {}, .out = out};
              if (gated) args.multiplier = multiplier;
              activation(cpu.with_row("activation", "reference"), args);
              args.x = gpu_x;
              if (gated) args.multiplier = gpu_multiplier;
              args.out = gpu_out;
              activation(gpu.get(), args);
              EXPECT_TRUE(testing::expect_close(gpu_out.download(), out, op_tolerance(out_dtype)))
                  << static_cast<int>(kind) << " " << shape.to_string() << padding;
            }
          }
        }
      }
    }
  }
}

TEST(ActivationCuda, works_in_place) {
  OCTAVO_REQUIRE_GPU();
  GpuContext gpu;
  for (const DType dtype : {kF32, kBF16}) {
    const GpuTensor x(gpu, TestTensor::random(dtype, {2, 700}, 1)), out(gpu, TestTensor(dtype, {2, 700}));
    activation(gpu.get(), {.activation = Activation::kSilu, .x = x, .multiplier = {}, .out = out});
    activation(gpu.get(), {.activation = Activation::kSilu, .x = x, .multiplier = {}, .out = x});
    EXPECT_TRUE(x.download().same_bytes(out.download()));
  }
}

TEST(ActivationCuda, extreme_values_do_not_overflow) {
  OCTAVO_REQUIRE_GPU();
  GpuContext gpu;
  for (const Activation kind :
       {Activation::kSilu, Activation::kGeluTanh, Activation::kGeluErf, Activation::kQuickGelu}) {
    TestTensor x(kF32, {1, 6});
    const float values[] = {3e38f, -3e38f, 1e20f, -1e20f, 0.0f, std::numeric_limits<float>::quiet_NaN()};
    std::memcpy(x.view().data(), values, sizeof values);
    const GpuTensor there(gpu, x);
    activation(gpu.get(), {.activation = kind, .x = there, .multiplier = {}, .out = there});
    const TestTensor back = there.download();
    const float* found = back.view().f32();
    EXPECT_EQ(found[0], 3e38f) << static_cast<int>(kind);
    EXPECT_EQ(found[1], 0.0f) << static_cast<int>(kind);
    EXPECT_EQ(found[2], 1e20f) << static_cast<int>(kind);
    EXPECT_EQ(found[3], 0.0f) << static_cast<int>(kind);
    EXPECT_EQ(found[4], 0.0f) << static_cast<int>(kind);
    EXPECT_TRUE(std::isnan(found[5])) << static_cast<int>(kind);
  }
}

TEST(ActivationCuda, codes_are_those_of_the_result_in_bf16_and_quantize) {
  OCTAVO_REQUIRE_GPU();
  TestContext cpu;
  GpuContext gpu;
  for (const Shape& shape : {Shape{1, 1}, Shape{3, 17}, Shape{2, 3, 530}, Shape{5, 9728}, Shape{2, 16384}}) {
    for (const Activation kind : kAll) {
      for (const DType format : {DType::kE4M3, DType::kI8}) {
        for (const bool gated : {false, true}) {
          const GpuTensor x(gpu, TestTensor::random(kBF16, shape, 1, 3.0f));
          const GpuTensor multiplier(gpu, TestTensor::random(kF32, shape, 2)), plain(gpu, TestTensor(kBF16, shape));
          const TestCodes expected(format, shape);
          const GpuTensor codes(gpu, expected.codes), scales(gpu, expected.scales);
          ActivationArgs args{.activation = kind, .x = x, .multiplier = {}, .out = plain};
          if (gated) args.multiplier = multiplier;
          activation(gpu.get(), args);
          args.out = codes;
          args.out_dequant_scale = scales;
          activation(gpu.get(), args);
          const TestTensor on_host = plain.download();
          quantize(cpu.with_row("quantize", "reference"),
                   {.x = on_host, .multiplier = {}, .outliers = {}, .out = expected.view(), .outlier_values = {}});
          EXPECT_TRUE(codes.download().same_bytes(expected.codes)) << static_cast<int>(kind) << shape.to_string();
          EXPECT_TRUE(scales.download().same_bytes(expected.scales)) << static_cast<int>(kind) << shape.to_string();
        }
      }
    }
  }
}

}  // namespace
}  // namespace octavo::ops
