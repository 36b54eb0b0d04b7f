#include "ops/op_profile.h"

#include <gtest/gtest.h>

#include "ops/activation/activation.h"
#include "ops/matmul/matmul.h"
#include "ops/op_test.h"

namespace octavo::ops {
namespace {

TEST(OpProfile, groups_calls_by_op_row_and_shape_with_their_cost) {
  TestContext test;
  ExecutionContext& context = test.get();
  const TestTensor x = TestTensor::random(DType::kF32, Shape{2, 8, 16}, 1);
  const TestTensor weight = TestTensor::random(DType::kBF16, Shape{32, 16}, 2);
  const TestTensor out(DType::kF32, Shape{2, 8, 32});
  OpProfile profile;
  context.set_op_observer(&profile);
  const auto packed = pack_matmul_weight(context.device(), weight.view(), DType::kF32);
  ASSERT_TRUE(packed.ok());
  for (int i = 0; i < 3; ++i) matmul(context, {.x = x.view(), .weight = *packed, .out = out.view()});
  activation(context, {.activation = Activation::kSilu, .x = out.view(), .out = out.view()});
  context.set_op_observer(nullptr);
  matmul(context, {.x = x.view(), .weight = *packed, .out = out.view()});

  const std::vector<OpProfileRow> rows = profile.rows();
  ASSERT_EQ(rows.size(), 2u);
  const OpProfileRow& product = rows[rows[0].op == "matmul" ? 0 : 1];
  const OpProfileRow& silu = rows[rows[0].op == "matmul" ? 1 : 0];
  EXPECT_EQ(product.op, "matmul");
  EXPECT_EQ(product.calls, 3);
  EXPECT_EQ(product.cost.shape, "16 x 32 x 16 f32 to f32");
  EXPECT_EQ(product.cost.flops, 2.0 * 16 * 32 * 16);
  EXPECT_EQ(product.cost.bytes, 4.0 * 16 * 16 + 4.0 * 16 * 32 + 2.0 * 32 * 16);
  EXPECT_GT(product.seconds, 0);
  EXPECT_EQ(silu.op, "activation");
  EXPECT_EQ(silu.calls, 1);
  EXPECT_EQ(silu.cost.bytes, 2.0 * 4 * 16 * 32);
  EXPECT_GE(profile.span_seconds(), product.seconds + silu.seconds);
  profile.clear();
  EXPECT_TRUE(profile.rows().empty());
  EXPECT_EQ(profile.span_seconds(), 0);
}

TEST(Roofline, is_the_larger_of_two_times_and_unknown_elsewhere) {
  const Roofline h100 = roofline_of({.kind = DeviceKind::kCuda, .name = "NVIDIA H100 80GB HBM3, 79 GiB, sm_90"});
  EXPECT_DOUBLE_EQ(h100.floor_seconds({.shape = "", .flops = 0, .bytes = 3e9}), 1e-3);
  EXPECT_DOUBLE_EQ(h100.floor_seconds({.shape = "", .flops = 1979e9, .bytes = 3, .multiplied = DType::kE4M3}), 1e-3);
  EXPECT_DOUBLE_EQ(h100.floor_seconds({.shape = "", .flops = 989e9, .bytes = 3, .multiplied = DType::kBF16}), 1e-3);
  const Roofline h200 = roofline_of({.kind = DeviceKind::kCuda, .name = "NVIDIA H200, 140 GiB, sm_90"});
  EXPECT_DOUBLE_EQ(h200.floor_seconds({.shape = "", .flops = 0, .bytes = 4.3e9}), 1e-3);
  EXPECT_EQ(roofline_of({.kind = DeviceKind::kCuda, .name = "NVIDIA L40S"}).bytes_per_second, 0);
  EXPECT_EQ(roofline_of({}).floor_seconds({.shape = "", .flops = 1, .bytes = 1}), 0);
}

}  // namespace
}  // namespace octavo::ops
