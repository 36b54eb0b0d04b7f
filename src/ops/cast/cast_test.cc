#include "ops/cast/cast.h"

#include <gtest/gtest.h>

#include <bit>
#include <limits>

#include "ops/op_test.h"

namespace octavo::ops {
namespace {

constexpr DType kDTypes[] = {DType::kF32, DType::kF16, DType::kBF16};

TEST(Cast, every_row_equals_the_reference_bit_for_bit) {
  TestContext context(3);
  const Shape shapes[] = {{1}, {37}, {3, 16}, {2, 3, 33}, {2, 2, 3, 9}, {40, 1000}};
  for (const Shape& shape : shapes) {
    for (const DType from : kDTypes) {
      for (const DType to : kDTypes) {
        const TestTensor x = TestTensor::random(from, shape, 1, 1.0f, 0.0f, shape.rank() > 1 ? 5 : 0);
        const TestTensor expected(to, shape);
        cast(context.with_row("cast", "reference"), {.x = x, .out = expected});
        for (const std::string_view row : context.rows(cast_table())) {
          const TestTensor actual(to, shape, shape.rank() > 1 ? 2 : 0);
          cast(context.with_row("cast", row), {.x = x, .out = actual});
          EXPECT_TRUE(same_bits(actual, expected)) << row << shape.to_string();
        }
      }
    }
  }
}

TEST(Cast, ties_ends_and_nan_are_right_in_every_row) {
  TestContext context;
  constexpr float kInputs[] = {1.0f + 0x1p-8f,
                               1.0f + 0x3p-8f,
                               3.4e38f,
                               65520.0f,
                               65519.0f,
                               0x1p-25f,
                               0x1.8p-24f,
                               -0.0f,
                               1e-40f,
                               std::numeric_limits<float>::infinity(),
                               -std::numeric_limits<float>::infinity(),
                               1.0f + 0x1p-11f};
  constexpr std::int64_t kCount = std::size(kInputs);
  for (const std::string_view row : context.rows(cast_table())) {
    // Sixteen copies: every value passes through whole vectors and through the tail.
    for (const DType to : {DType::kBF16, DType::kF16}) {
      const TestTensor x(DType::kF32, {16 * kCount + 1});
      for (std::int64_t i = 0; i < 16 * kCount; ++i) x.view().f32()[i] = kInputs[i % kCount];
      x.view().f32()[16 * kCount] = std::numeric_limits<float>::quiet_NaN();
      const TestTensor out(to, {16 * kCount + 1});
      cast(context.with_row("cast", row), {.x = x, .out = out});
      const Row values(out, {});
      for (std::int64_t i = 0; i < 16 * kCount; ++i) {
        const float in = kInputs[i % kCount];
        const float expected = to == DType::kBF16 ? to_float(to_bfloat16(in)) : to_float(to_float16(in));
        EXPECT_EQ(std::bit_cast<std::uint32_t>(values[i]), std::bit_cast<std::uint32_t>(expected)) << row << " " << in;
      }
      EXPECT_TRUE(std::isnan(values[16 * kCount])) << row;
    }
  }
}

TEST(Cast, refuses_integers_and_other_shapes) {
  TestContext context;
  const TestTensor x(DType::kI32, {4});
  const TestTensor y(DType::kF32, {4});
  const TestTensor z(DType::kF32, {5});
  EXPECT_THROW(cast(context.get(), {.x = x, .out = y}), CheckFailure);
  EXPECT_THROW(cast(context.get(), {.x = y, .out = z}), CheckFailure);
}

}  // namespace
}  // namespace octavo::ops
