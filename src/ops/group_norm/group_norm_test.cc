#include "ops/group_norm/group_norm.h"

#include <gtest/gtest.h>

#include "ops/op_test.h"

namespace octavo::ops {
namespace {

using testing::expect_close;

struct Case {
  Shape shape{1, 8, 8, 32};
  int groups = 32;
  bool silu = false;
  DType x = DType::kF32;
  DType out = DType::kF32;
  float mean = 0.5f;

  std::string name() const {
    return fmt::format("{} groups{} silu{} {}->{} mean{}", shape.to_string(), groups, silu, dtype_name(x),
                       dtype_name(out), mean);
  }
};

class Norm {
 public:
  explicit Norm(const Case& c)
      : x(TestTensor::random(c.x, c.shape, 1, 2, c.mean)),
        weight(TestTensor::random(DType::kF32, Shape{c.shape[3]}, 2)),
        bias(TestTensor::random(DType::kF32, Shape{c.shape[3]}, 3)),
        case_(c) {}
  void run(TestContext& context, std::string_view row, const TensorView& from, const TensorView& out) const {
    group_norm(context.with_row("group_norm", row),
               {.x = from, .weight = weight, .bias = bias, .groups = case_.groups, .silu = case_.silu, .out = out});
  }
  TestTensor x, weight, bias;

 private:
  Case case_;
};

void check(const Case& c) {
  TestContext context(3);
  const Norm norm(c);
  const TestTensor expected(c.out, c.shape);
  norm.run(context, "reference", norm.x, expected);
  for (const std::string_view row : context.rows(group_norm_table())) {
    const TestTensor actual(c.out, c.shape);
    norm.run(context, row, norm.x, actual);
    EXPECT_TRUE(expect_close(actual, expected, op_tolerance(c.out))) << row << " " << c.name();
  }
}

TEST(GroupNorm, every_row_equals_reference) {
  for (const DType x : {DType::kF32, DType::kBF16}) {
    for (const DType out : {DType::kF32, DType::kBF16}) {
      for (const bool silu : {false, true}) {
        for (const auto& [channels, groups] : {std::pair{32, 32}, {96, 32}, {64, 32}, {40, 4}, {7, 1}, {3, 3}}) {
          for (const auto& [height, width] : {std::pair{1, 1}, {3, 5}, {16, 17}, {33, 31}}) {
            check({.shape = {2, height, width, channels}, .groups = groups, .silu = silu, .x = x, .out = out});
          }
        }
      }
    }
  }
}

TEST(GroupNorm, a_large_mean_does_not_spoil_the_variance) { check({.shape = {1, 40, 40, 64}, .mean = 100.0f}); }

TEST(GroupNorm, out_may_be_x) {
  const Case c{.shape = {2, 20, 20, 32}};
  TestContext context;
  const Norm norm(c);
  const TestTensor apart(DType::kF32, c.shape);
  for (const std::string_view row : context.rows(group_norm_table())) {
    norm.run(context, row, norm.x, apart);
    const TestTensor in_place = TestTensor::random(c.x, c.shape, 1, 2, c.mean);
    norm.run(context, row, in_place, in_place);
    EXPECT_TRUE(same_bits(in_place, apart)) << row;
  }
}

TEST(GroupNorm, threads_and_batch_do_not_change_a_bit) {
  const Case c{.shape = {3, 40, 40, 32}, .silu = true};
  TestContext one(1);
  TestContext four(4);
  const Norm norm(c);
  for (const std::string_view row : one.rows(group_norm_table())) {
    const TestTensor expected(DType::kF32, c.shape);
    const TestTensor actual(DType::kF32, c.shape);
    norm.run(one, row, norm.x, expected);
    norm.run(four, row, norm.x, actual);
    EXPECT_TRUE(same_bits(actual, expected)) << row;
    const TestTensor alone(DType::kF32, Shape{1, 40, 40, 32});
    norm.run(one, row, norm.x.view().slice(0, 1, 1), alone);
    EXPECT_TRUE(same_bits(alone, expected.view().slice(0, 1, 1))) << row;
  }
}

}  // namespace
}  // namespace octavo::ops
