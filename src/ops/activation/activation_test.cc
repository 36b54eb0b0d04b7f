#include "ops/activation/activation.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "ops/activation/activation_kernels.h"
#include "ops/op_test.h"
#include "ops/quantize/quantize.h"

namespace octavo::ops {
namespace {

constexpr DType kF32 = DType::kF32;
constexpr DType kBF16 = DType::kBF16;
constexpr Activation kAll[] = {Activation::kNone, Activation::kSilu, Activation::kGeluTanh, Activation::kGeluErf,
                               Activation::kQuickGelu};

TEST(Activation, every_row_equals_the_reference) {
  TestContext context;
  // 512 is the size of the vector row's buffer: one piece, a piece and a tail, several pieces.
  const Shape shapes[] = {{1, 1}, {3, 17}, {2, 512}, {2, 513}, {2, 3, 64}, {2, 2, 530}};
  for (const Shape& shape : shapes) {
    for (const Activation kind : kAll) {
      for (const auto& [in_dtype, out_dtype] :
           {std::pair(kF32, kF32), std::pair(kF32, kBF16), std::pair(kBF16, kBF16)}) {
        for (const bool gated : {false, true}) {
          for (const std::int64_t padding : {0, 3}) {
            const TestTensor x = TestTensor::random(in_dtype, shape, 1, 3.0f, 0.0f, padding);
            const TestTensor multiplier = TestTensor::random(kF32, shape, 2, 1.0f, 0.0f, padding);
            const auto run = [&](std::string_view row, const TensorView& out) {
              ActivationArgs args;
              args.activation = kind;
              args.x = x;
              if (gated) args.multiplier = multiplier;
              args.out = out;
              activation(context.with_row("activation", row), args);
            };
            const TestTensor expected(out_dtype, shape);
            run("reference", expected);
            for (const std::string_view row : context.rows(activation_table())) {
              const TestTensor actual(out_dtype, shape, padding);
              run(row, actual);
              EXPECT_TRUE(testing::expect_close(actual, expected, op_tolerance(out_dtype)))
                  << row << " " << static_cast<int>(kind) << " " << shape.to_string();
            }
          }
        }
      }
    }
  }
}

TEST(Activation, works_in_place) {
  TestContext context;
  for (const std::string_view row : context.rows(activation_table())) {
    const TestTensor x = TestTensor::random(kF32, {2, 700}, 1);
    const TestTensor expected(kF32, {2, 700});
    activation(context.with_row("activation", row), {.activation = Activation::kSilu, .x = x, .out = expected});
    activation(context.with_row("activation", row), {.activation = Activation::kSilu, .x = x, .out = x});
    EXPECT_TRUE(x.same_bytes(expected)) << row;
  }
}

TEST(Activation, codes_are_those_of_the_result_in_bf16_and_quantize) {
  TestContext context;
  for (const Shape& shape : {Shape{1, 1}, Shape{3, 17}, Shape{2, 3, 530}}) {
    for (const Activation kind : kAll) {
      for (const DType format : {DType::kE4M3, DType::kI8}) {
        for (const bool gated : {false, true}) {
          const TestTensor x = TestTensor::random(kBF16, shape, 1, 3.0f, 0.0f, 3);
          const TestTensor multiplier = TestTensor::random(kF32, shape, 2);
          const TestTensor plain(kBF16, shape);
          const TestCodes codes(format, shape), expected(format, shape);
          ActivationArgs args;
          args.activation = kind;
          args.x = x;
          if (gated) args.multiplier = multiplier;
          args.out = plain;
          activation(context.with_row("activation", "reference"), args);
          quantize(context.get(),
                   {.x = plain, .multiplier = {}, .outliers = {}, .out = expected.view(), .outlier_values = {}});
          args.out = codes.codes;
          args.out_dequant_scale = codes.scales;
          activation(context.with_row("activation", "reference"), args);
          EXPECT_TRUE(codes.same_bytes(expected)) << static_cast<int>(kind) << shape.to_string();
        }
      }
    }
  }
}

/// The promise of activation-inl.h: the error against double over a dense sample of all floats.
TEST(Activation, vectorised_errors_are_within_the_stated_bounds) {
  struct Bound {
    Activation kind;
    float from;       // relative error is bounded between here and 30
    double relative;  // to the result
  };
  constexpr Bound kBounds[] = {{Activation::kSilu, -87.0f, 3.6e-7},
                               {Activation::kGeluErf, -13.0f, 3.6e-7},
                               {Activation::kGeluTanh, -4.0f, 1.2e-6},
                               {Activation::kQuickGelu, -11.0f, 1.4e-6}};
  for (const Bound& bound : kBounds) {
    std::vector<float> inputs;
    constexpr std::uint32_t kStride = 1999;  // a prime: every part of the mantissa is met
    for (auto bits = std::bit_cast<std::uint32_t>(1e-30f); bits < std::bit_cast<std::uint32_t>(87.0f);
         bits += kStride) {
      inputs.push_back(std::bit_cast<float>(bits));
      inputs.push_back(-inputs.back());
    }
    std::vector<float> outputs = inputs;
    activate_row(bound.kind, outputs.data(), static_cast<std::int64_t>(outputs.size()));
    double worst_absolute = 0;
    double worst_relative = 0;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const double exact = activate_reference(bound.kind, inputs[i]);
      const double error = std::abs(outputs[i] - exact);
      worst_absolute = std::max(worst_absolute, error / std::abs(inputs[i]));
      if (inputs[i] > bound.from && std::abs(exact) > 1e-37) {
        worst_relative = std::max(worst_relative, error / std::abs(exact));
      }
    }
    EXPECT_LE(worst_absolute, 1.8e-7) << static_cast<int>(bound.kind);
    EXPECT_LE(worst_relative, bound.relative) << static_cast<int>(bound.kind);
  }
}

TEST(Activation, extreme_values_do_not_overflow) {
  for (const Activation kind :
       {Activation::kSilu, Activation::kGeluTanh, Activation::kGeluErf, Activation::kQuickGelu}) {
    float values[] = {3e38f, -3e38f, 1e20f, -1e20f, 0.0f, std::numeric_limits<float>::quiet_NaN()};
    activate_row(kind, values, 6);
    EXPECT_EQ(values[0], 3e38f);
    EXPECT_EQ(values[1], 0.0f);
    EXPECT_EQ(values[2], 1e20f);
    EXPECT_EQ(values[3], 0.0f);
    EXPECT_EQ(values[4], 0.0f);
    EXPECT_TRUE(std::isnan(values[5]));
  }
}

}  // namespace
}  // namespace octavo::ops
