#include "ops/attention/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/op_test.h"

namespace octavo::ops {
namespace {

using testing::expect_close;

struct Case {
  std::int64_t batch = 1;
  std::int64_t heads = 2;
  std::int64_t queries = 10;
  std::int64_t keys = 10;
  std::int64_t width = 64;
  DType dtype = DType::kF32;
  bool bias = false;
  bool causal = false;
  std::int64_t padding = 0;
  float spread = 1.0f;

  std::string name() const {
    return fmt::format("B{} H{} Sq{} Sk{} Dh{} {} bias{} causal{} padding{} spread{}", batch, heads, queries, keys,
                       width, dtype_name(dtype), bias, causal, padding, spread);
  }
};

void check(const Case& c) {
  TestContext context(1);  // many small cases: waking threads would be most of the time
  const TestTensor q =
      TestTensor::random(c.dtype, Shape{c.batch, c.heads, c.queries, c.width}, 1, c.spread, 0, c.padding);
  const TestTensor k = TestTensor::random(c.dtype, Shape{c.batch, c.heads, c.keys, c.width}, 2, c.spread, 0, c.padding);
  const TestTensor v = TestTensor::random(c.dtype, Shape{c.batch, c.heads, c.keys, c.width}, 3, 1, 0, c.padding);
  const TestTensor bias = TestTensor::random(DType::kF32, Shape{c.heads, c.queries, c.keys}, 4);
  const Shape shape{c.batch, c.queries, c.heads * c.width};
  const auto run = [&](std::string_view row) {
    TestTensor out(c.dtype, shape, c.padding);
    attention(context.with_row("attention", row), {.q = q,
                                                   .k = k,
                                                   .v = v,
                                                   .bias = c.bias ? bias.view() : TensorView(),
                                                   .score_factor = 1.0f / std::sqrt(static_cast<float>(c.width)),
                                                   .causal = c.causal,
                                                   .out = out});
    return out;
  };
  if (!context.get().traits().has_avx2) return;
  EXPECT_TRUE(
      expect_close(run("flash"), run("reference"), c.dtype == DType::kF32 ? testing::kOpF32 : testing::kOpBf16Rounded))
      << c.name();
}

TEST(Attention, flash_equals_reference_at_every_tail) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const std::int64_t queries : {1, 5, 23, 24, 25, 54}) {
      for (const std::int64_t keys : {1, 2, 15, 63, 64, 65, 256, 257, 331}) {
        check({.queries = queries, .keys = keys, .dtype = dtype});
      }
    }
  }
}

TEST(Attention, flash_equals_reference_at_other_head_widths_and_batches) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const std::int64_t width : {16, 32, 48, 80, 96, 112, 128, 512}) {
      check({.batch = 3, .heads = 1, .queries = 30, .keys = 70, .width = width, .dtype = dtype});
    }
    check({.batch = 4, .heads = 3, .queries = 41, .keys = 41, .dtype = dtype});
  }
}

TEST(Attention, flash_equals_reference_with_bias_and_causal_mask) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const std::int64_t tokens : {1, 7, 77, 300}) {
      check({.queries = tokens, .keys = tokens, .dtype = dtype, .bias = true});
      check({.queries = tokens, .keys = tokens, .dtype = dtype, .causal = true});
      check({.queries = tokens, .keys = tokens, .dtype = dtype, .bias = true, .causal = true});
    }
  }
}

TEST(Attention, rows_may_be_strided) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    check({.batch = 2, .queries = 33, .keys = 65, .dtype = dtype, .padding = 32});
  }
}

TEST(Attention, large_scores_neither_overflow_nor_lose_the_largest) {
  check({.queries = 40, .keys = 300, .spread = 12.0f});  // scores of some hundreds
}

TEST(Attention, weights_are_exponentials_to_a_few_units) {
  TestContext context(1);
  if (!context.get().traits().has_avx2) return;
  // Two keys: scores 0 and x, values (1, 0) and (0, 1). The outputs' ratio is e^x after two roundings.
  std::vector<float> k(2 * 16);
  std::vector<float> v(2 * 16);
  v[0] = 1;
  v[16 + 1] = 1;
  k[16] = 1;
  double worst = 0;
  for (double x = -86.9; x <= 0; x += 0.00137) {
    std::vector<float> q(16);
    q[0] = static_cast<float>(x);
    const TestTensor out(DType::kF32, Shape{1, 1, 16});
    attention(context.with_row("attention", "flash"), {.q = TensorView(q.data(), DType::kF32, Shape{1, 1, 1, 16}),
                                                       .k = TensorView(k.data(), DType::kF32, Shape{1, 1, 2, 16}),
                                                       .v = TensorView(v.data(), DType::kF32, Shape{1, 1, 2, 16}),
                                                       .bias = {},
                                                       .out = out});
    const double ratio = static_cast<double>(out.view().f32()[1]) / out.view().f32()[0];
    worst = std::max(worst, std::abs(ratio / std::exp(static_cast<double>(q[0])) - 1));
  }
  EXPECT_LT(worst, 5e-7);
}

TEST(Attention, operands_of_a_plain_device_are_those_of_the_activations) {
  TestContext context;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const AttentionOperands operands = plan_attention_operands(context.get(), dtype, 64, 0.125f, true);
    EXPECT_EQ(operands.q, dtype);
    EXPECT_EQ(operands.k, dtype);
    EXPECT_EQ(operands.v, dtype);
    EXPECT_EQ(operands.q_factor * operands.k_factor, 1.0f);
    EXPECT_EQ(operands.score_factor, 0.125f);
  }
}

TEST(Attention, codes_are_the_values_times_their_scales_rounded) {
  TestContext context;
  const Shape shape{2, 2, 9, 64};
  const TestTensor q = TestTensor::random(DType::kE4M3, shape, 1, 4.0f),
                   k = TestTensor::random(DType::kE4M3, shape, 2, 4.0f),
                   v = TestTensor::random(DType::kE4M3, shape, 3, 50.0f), quant_scale = one_value(300.0f);
  const Shape out_shape{2, 9, 128};
  const TestTensor values(DType::kF32, out_shape), codes(DType::kE4M3, out_shape), expected(DType::kE4M3, out_shape);
  AttentionArgs args{.q = q, .k = k, .v = v, .bias = {}, .score_factor = 0.125f / 16};
  args.value_factor = 0.02f;
  args.out = values;
  attention(context.get(), args);
  args.out = codes;
  EXPECT_THROW(attention(context.get(), args), CheckFailure);  // without their scale
  args.out_quant_scale = quant_scale;
  attention(context.get(), args);
  std::int64_t saturated = 0;
  for (std::int64_t b = 0; b < 2; ++b) {
    for (std::int64_t t = 0; t < 9; ++t) {
      for (std::int64_t i = 0; i < 128; ++i) {
        const float value = Row(values, {b, t})[i] * 300.0f;
        Row(expected, {b, t}).set(i, value);
        saturated += std::abs(value) > kE4M3Largest ? 1 : 0;
      }
    }
  }
  EXPECT_GT(saturated, 0);
  EXPECT_TRUE(expect_close(codes, expected, testing::kOpFloat8Stored));
  args.out = values;  // a scale without codes
  EXPECT_THROW(attention(context.get(), args), CheckFailure);
}

TEST(Attention, operands_of_a_hopper_gpu_give_the_same_scores_and_need_normed_heads_of_64) {
  DeviceTraits hopper;
  hopper.kind = DeviceKind::kCuda;
  hopper.compute_capability = 90;
  const AttentionOperands operands = plan_attention_operands(hopper, DType::kBF16, 64, 0.125f, true);
  EXPECT_EQ(operands.v, DType::kF16);
  EXPECT_NEAR(operands.q_factor * operands.k_factor * operands.score_factor, 0.125f, 1e-8f);
  const AttentionOperands codes = plan_attention_operands(hopper, DType::kBF16, 64, 0.125f, true, true);
  EXPECT_EQ(codes.q, DType::kE4M3);
  EXPECT_EQ(codes.v, DType::kF16);
  EXPECT_NEAR(codes.q_factor * codes.k_factor * codes.score_factor, 0.125f, 1e-8f);
  DeviceTraits ada = hopper;
  ada.compute_capability = 89;
  for (const AttentionOperands& plain : {plan_attention_operands(hopper, DType::kBF16, 64, 0.125f, false),
                                         plan_attention_operands(hopper, DType::kBF16, 128, 0.125f, true),
                                         plan_attention_operands(ada, DType::kBF16, 64, 0.125f, true)}) {
    EXPECT_EQ(plain.q, DType::kBF16);
    EXPECT_EQ(plain.score_factor, 0.125f);
  }
}

TEST(Attention, reference_reads_f16_and_codes_as_the_numbers_they_are) {
  TestContext context(1);
  for (const DType dtype : {DType::kF16, DType::kE4M3}) {
    const TestTensor q = TestTensor::random(dtype, Shape{2, 2, 5, 64}, 1);
    const TestTensor k = TestTensor::random(dtype, Shape{2, 2, 9, 64}, 2);
    const TestTensor v = TestTensor::random(DType::kF16, Shape{2, 2, 9, 64}, 3);
    const auto run = [&](const TestTensor& a, const TestTensor& b, const TestTensor& c) {
      TestTensor out(DType::kF32, Shape{2, 5, 128});
      attention(context.with_row("attention", "reference"),
                {.q = a, .k = b, .v = c, .bias = {}, .score_factor = 0.125f, .causal = false, .out = out});
      return out;
    };
    const auto widened = [](const TestTensor& tensor) {
      TestTensor wide(DType::kF32, tensor.view().shape());
      const Shape& s = tensor.view().shape();
      for (std::int64_t b = 0; b < s[0]; ++b)
        for (std::int64_t h = 0; h < s[1]; ++h)
          for (std::int64_t t = 0; t < s[2]; ++t)
            for (std::int64_t i = 0; i < s[3]; ++i) Row(wide, {b, h, t}).set(i, Row(tensor, {b, h, t})[i]);
      return wide;
    };
    EXPECT_TRUE(same_bits(run(q, k, v), run(widened(q), widened(k), widened(v)))) << dtype_name(dtype);
  }
}

TEST(Attention, a_query_does_not_depend_on_its_neighbours) {
  TestContext context;
  if (!context.get().traits().has_avx2) return;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const TestTensor q = TestTensor::random(dtype, Shape{1, 2, 100, 64}, 1);
    const TestTensor k = TestTensor::random(dtype, Shape{1, 2, 410, 64}, 2);
    const TestTensor v = TestTensor::random(dtype, Shape{1, 2, 410, 64}, 3);
    const auto run = [&](std::int64_t begin, std::int64_t count) {
      TestTensor out(dtype, Shape{1, count, 128});
      attention(context.with_row("attention", "flash"), {.q = q.view().slice(2, begin, count),
                                                         .k = k,
                                                         .v = v,
                                                         .bias = {},
                                                         .score_factor = 0.125f,
                                                         .causal = false,
                                                         .out = out});
      return out;
    };
    const TestTensor all = run(0, 100);
    for (const auto& [begin, count] :
         {std::pair<std::int64_t, std::int64_t>{0, 1}, {5, 1}, {30, 7}, {50, 50}, {99, 1}}) {
      EXPECT_TRUE(same_bits(run(begin, count), all.view().slice(1, begin, count)))
          << dtype_name(dtype) << " queries " << begin << " + " << count;
    }
  }
}

TEST(Attention, threads_do_not_change_a_bit) {
  TestContext one(1);
  TestContext three(3);
  if (!one.get().traits().has_avx2) return;
  const TestTensor q = TestTensor::random(DType::kF32, Shape{2, 2, 100, 64}, 1);
  const TestTensor expected(DType::kF32, Shape{2, 100, 128});
  const TestTensor actual(DType::kF32, Shape{2, 100, 128});
  for (auto& [context, out] : {std::pair{&one, &expected}, {&three, &actual}}) {
    attention(context->with_row("attention", "flash"),
              {.q = q, .k = q, .v = q, .bias = {}, .score_factor = 0.125f, .causal = true, .out = *out});
  }
  EXPECT_TRUE(same_bits(actual, expected));
}

TEST(Attention, a_nan_in_a_query_stays_in_that_query) {
  TestContext context;
  if (!context.get().traits().has_avx2) return;
  const TestTensor q = TestTensor::random(DType::kF32, Shape{1, 1, 30, 64}, 1);
  q.view().f32()[3 * 64] = std::nanf("");
  const TestTensor out(DType::kF32, Shape{1, 30, 64});
  attention(context.with_row("attention", "flash"),
            {.q = q, .k = q.view().slice(2, 4, 20), .v = q.view().slice(2, 4, 20), .bias = {}, .out = out});
  for (std::int64_t row = 0; row < 30; ++row) {
    EXPECT_EQ(std::isnan(out.view().f32()[row * 64 + 1]), row == 3) << row;
  }
}

}  // namespace
}  // namespace octavo::ops
