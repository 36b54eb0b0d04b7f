// Attention for heads of 64 on sm_90a, and the split that feeds it, against the CPU's references.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

#include "ops/attention/attention.h"
#include "ops/cuda/gpu_op_test.h"
#include "ops/norm/norm.h"

namespace octavo::ops {
namespace {

using testing::expect_close;

bool is_hopper() { return test_gpu() != nullptr && test_gpu()->traits().compute_capability == 90; }

#define OCTAVO_REQUIRE_HOPPER() \
  if (!is_hopper()) GTEST_SKIP() << "no GPU of compute capability 9.0"

struct Shapes {
  std::int64_t batch, heads, queries, keys;
};

/// Operands as they come out of the split: q holds the factor that makes scores exponents of two.
struct Operands {
  explicit Operands(const Shapes& s, DType dtype, float spread = 1.0f, std::int64_t padding = 0)
      : codes(dtype == DType::kE4M3),
        q(TestTensor::random(dtype, Shape{s.batch, s.heads, s.queries, 64}, 1, spread * (codes ? 4.0f : q_factor()), 0,
                             padding)),
        k(TestTensor::random(dtype, Shape{s.batch, s.heads, s.keys, 64}, 2, spread * (codes ? 4.0f : 1.0f), 0,
                             padding)),
        v(TestTensor::random(DType::kF16, Shape{s.batch, s.heads, s.keys, 64}, 3, 1.5f, 0.25f, padding)) {}
  static float q_factor() { return 0.125f * std::numbers::log2e_v<float>; }
  float score_factor() const { return codes ? 0.125f / 16.0f : std::numbers::ln2_v<float>; }

  bool codes;
  TestTensor q, k, v;
};

AttentionArgs arguments(const Operands& operands, const TensorView& q, const TensorView& k, const TensorView& v,
                        const TensorView& out) {
  return {.q = q, .k = k, .v = v, .bias = {}, .score_factor = operands.score_factor(), .causal = false, .out = out};
}

TestTensor on_cpu(const Operands& operands, const Shapes& s) {
  TestContext context;
  TestTensor out(DType::kF32, Shape{s.batch, s.queries, s.heads * 64});
  attention(context.with_row("attention", "reference"), arguments(operands, operands.q, operands.k, operands.v, out));
  return out;
}

TestTensor on_gpu(GpuContext& gpu, const Operands& operands, const Shapes& s, std::int64_t padding = 0) {
  const GpuTensor q(gpu, operands.q), k(gpu, operands.k), v(gpu, operands.v);
  const GpuTensor out(gpu, TestTensor(DType::kBF16, Shape{s.batch, s.queries, s.heads * 64}, padding));
  attention(gpu.with_row("attention", "hopper"), arguments(operands, q, k, v, out));
  return out.download();
}

void check(const Shapes& s, DType dtype, float spread = 1.0f, std::int64_t padding = 0) {
  GpuContext gpu;
  const Operands operands(s, dtype, spread, padding);
  EXPECT_TRUE(expect_close(on_gpu(gpu, operands, s, padding), on_cpu(operands, s), testing::kOpBf16Rounded))
      << fmt::format("B{} H{} Sq{} Sk{} {} spread {} padding {}", s.batch, s.heads, s.queries, s.keys,
                     dtype_name(dtype), spread, padding);
}

TEST(AttentionHopper, equals_reference_at_every_tail) {
  OCTAVO_REQUIRE_HOPPER();
  for (const std::int64_t queries : {1, 63, 64, 65, 257, 372}) {
    for (const std::int64_t keys : {1, 2, 9, 63, 127, 128, 129, 255, 256, 410}) {
      check({1, 2, queries, keys}, DType::kF16);
      check({1, 2, queries, keys}, DType::kE4M3);
    }
  }
}

TEST(AttentionHopper, equals_reference_at_other_batches_strides_and_spreads) {
  OCTAVO_REQUIRE_HOPPER();
  check({5, 3, 70, 200}, DType::kF16);
  check({2, 2, 70, 300}, DType::kF16, 1.0f, 8);
  check({1, 38, 130, 333}, DType::kF16);
  check({1, 2, 70, 300}, DType::kF16, 2.0f);  // scores of up to 20
  check({1, 2, 70, 300}, DType::kF16, 0.0f);  // equal weights
}

TEST(AttentionHopper, long_sequences_equal_the_reference) {
  OCTAVO_REQUIRE_HOPPER();
  check({1, 1, 300, 4429}, DType::kF16);
  check({1, 2, 300, 4429}, DType::kE4M3);
}

TEST(AttentionHopper, codes_of_a_static_scale_are_those_of_the_reference) {
  OCTAVO_REQUIRE_HOPPER();
  std::int64_t saturated = 0;
  for (const DType dtype : {DType::kF16, DType::kE4M3}) {
    for (const auto& [queries, padding] : {std::array<std::int64_t, 2>{70, 0}, {372, 16}, {1, 0}}) {
      const Shapes s{2, 3, queries, 200};
      TestContext cpu;
      GpuContext gpu;
      const Operands operands(s, dtype);
      const Shape shape{s.batch, s.queries, s.heads * 64};
      const TestTensor quant_scale = one_value(200.0f);
      const auto with_codes = [&](const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& out,
                                  const TensorView& scale) {
        AttentionArgs args = arguments(operands, q, k, v, out);
        args.value_factor = 3.0f;
        args.out_quant_scale = scale;
        return args;
      };
      const TestTensor expected(DType::kE4M3, shape, padding);
      attention(cpu.with_row("attention", "reference"),
                with_codes(operands.q, operands.k, operands.v, expected, quant_scale));
      const GpuTensor q(gpu, operands.q), k(gpu, operands.k), v(gpu, operands.v), scale(gpu, quant_scale),
          out(gpu, TestTensor(DType::kE4M3, shape, padding));
      attention(gpu.with_row("attention", "hopper"), with_codes(q, k, v, out, scale));
      expected.for_each_row([&](const Row& row) {
        for (std::int64_t n = 0; n < shape[-1]; ++n) saturated += std::abs(row[n]) == kE4M3Largest ? 1 : 0;
      });
      EXPECT_TRUE(expect_close(out.download(), expected, testing::kOpFloat8Stored))
          << dtype_name(dtype) << " queries " << queries << " padding " << padding;
    }
  }
  EXPECT_GT(saturated, 0);
}

TEST(AttentionHopper, many_keys_far_below_one_that_stands_out_keep_their_weight) {
  OCTAVO_REQUIRE_HOPPER();
  constexpr std::int64_t kKeys = 4096;
  constexpr int kChannels = 64;
  for (const int octaves : {12, 16, 20}) {  // between that one and the others
    GpuContext gpu;
    const Shape shape{1, 1, kKeys, kChannels};
    const float q_value = static_cast<float>(octaves) / kChannels;
    const TestTensor q = TestTensor::random(DType::kF16, Shape{1, 1, 64, kChannels}, 1, 0.0f, q_value);
    const TestTensor k = TestTensor::random(DType::kF16, shape, 2, 0.0f, 0.0f);
    const TestTensor v = TestTensor::random(DType::kF16, shape, 3, 0.0f, 1.0f);
    constexpr std::uint16_t kOne = 0x3C00;
    std::fill_n(static_cast<std::uint16_t*>(k.view().data()), kChannels, kOne);
    std::fill_n(static_cast<std::uint16_t*>(v.view().data()), kChannels, std::uint16_t{0});
    const GpuTensor gpu_q(gpu, q), gpu_k(gpu, k), gpu_v(gpu, v);
    const GpuTensor out(gpu, TestTensor(DType::kBF16, Shape{1, 64, kChannels}));
    attention(gpu.with_row("attention", "hopper"), {.q = gpu_q,
                                                    .k = gpu_k,
                                                    .v = gpu_v,
                                                    .bias = {},
                                                    .score_factor = std::numbers::ln2_v<float>,
                                                    .causal = false,
                                                    .out = out});
    const double others = std::ldexp(static_cast<double>(kKeys - 1), -octaves);
    const TestTensor found = out.download();
    const auto bits = static_cast<std::uint32_t>(static_cast<const std::uint16_t*>(found.view().data())[0]) << 16;
    EXPECT_NEAR(std::bit_cast<float>(bits) / (others / (1 + others)), 1.0, 0.01) << octaves << " octaves";
  }
}

TEST(AttentionHopper, a_query_does_not_depend_on_its_neighbours_or_the_batch) {
  OCTAVO_REQUIRE_HOPPER();
  GpuContext gpu;
  const Shapes all{3, 2, 300, 410};
  const Operands operands(all, DType::kF16);
  const TestTensor together = on_gpu(gpu, operands, all);
  EXPECT_TRUE(on_gpu(gpu, operands, all).same_bytes(together)) << "two runs differ";
  const GpuTensor q(gpu, operands.q), k(gpu, operands.k), v(gpu, operands.v);
  for (const auto& [row, begin, count] :
       {std::array<std::int64_t, 3>{0, 0, 300}, {1, 5, 1}, {2, 200, 100}, {1, 64, 37}}) {
    const GpuTensor out(gpu, TestTensor(DType::kBF16, Shape{1, count, 128}));
    attention(gpu.with_row("attention", "hopper"),
              arguments(operands, q.view().slice(0, row, 1).slice(2, begin, count), k.view().slice(0, row, 1),
                        v.view().slice(0, row, 1), out));
    EXPECT_TRUE(same_bits(out.download(), together.view().slice(0, row, 1).slice(1, begin, count)))
        << row << ": " << begin << " + " << count;
  }
}

TEST(AttentionHopper, plan_asks_for_what_the_row_takes) {
  OCTAVO_REQUIRE_HOPPER();
  GpuContext gpu;
  for (const bool codes : {false, true}) {
    const AttentionOperands plan = plan_attention_operands(gpu.get(), DType::kBF16, 64, 0.125f, true, codes);
    EXPECT_EQ(plan.q, codes ? DType::kE4M3 : DType::kF16);
    EXPECT_NEAR(plan.q_factor * plan.k_factor * plan.score_factor, 0.125f, 1e-8f);
    const Shape shape{1, 1, 16, 64};
    const TestTensor q(plan.q, shape), k(plan.k, shape), v(plan.v, shape), out(DType::kBF16, Shape{1, 16, 64});
    const AttentionArgs args{
        .q = q, .k = k, .v = v, .bias = {}, .score_factor = plan.score_factor, .causal = false, .out = out};
    EXPECT_EQ(gpu.rows_for(attention_table(), args).front(), "hopper");
  }
  EXPECT_EQ(plan_attention_operands(gpu.get(), DType::kBF16, 64, 0.125f, false, true).q, DType::kBF16);
  EXPECT_EQ(plan_attention_operands(gpu.get(), DType::kBF16, 128, 0.125f, true).q, DType::kBF16);
  EXPECT_EQ(plan_attention_operands(gpu.with_row("attention", "cudnn"), DType::kBF16, 64, 0.125f, true).q,
            DType::kBF16);
}

TEST(SplitHeads, equals_reference_and_writes_only_its_tokens) {
  OCTAVO_REQUIRE_GPU();
  TestContext cpu;
  GpuContext gpu;
  constexpr std::int64_t kBatch = 2, kHeads = 3, kTokens = 37, kJoint = 50, kOffset = 8;
  for (const DType dtype : {DType::kF16, DType::kBF16, DType::kE4M3}) {
    const DType v_dtype = dtype == DType::kE4M3 ? DType::kF16 : dtype;
    for (const bool with_q : {true, false}) {
      for (const bool normed : {true, false}) {
        const TestTensor qkv =
            TestTensor::random(DType::kBF16, Shape{kBatch, kTokens, (with_q ? 3 : 2) * kHeads * 64}, 1, 3.0f);
        const TestTensor weight = TestTensor::random(DType::kF32, Shape{64}, 2, 0.5f, 1.0f);
        const Shape shape{kBatch, kHeads, kJoint, 64};
        const auto run = [&](ExecutionContext& context, const TensorView& in, const TensorView& w, const TensorView& q,
                             const TensorView& k, const TensorView& v) {
          qkv_split_norm(context, {.qkv = in,
                                   .q_weight = normed && with_q ? w : TensorView(),
                                   .k_weight = normed ? w : TensorView(),
                                   .q_factor = 0.18f,
                                   .k_factor = 2.0f,
                                   .q = with_q ? q.slice(2, kOffset, kTokens) : TensorView(),
                                   .k = k.slice(2, kOffset, kTokens),
                                   .v = v.slice(2, kOffset, kTokens)});
        };
        const TestTensor q(dtype, shape), k(dtype, shape), v(v_dtype, shape);
        const GpuTensor gpu_qkv(gpu, qkv), gpu_weight(gpu, weight), gpu_q(gpu, q), gpu_k(gpu, k), gpu_v(gpu, v);
        run(gpu.with_row("qkv_split_norm", "heads64"), gpu_qkv, gpu_weight, gpu_q, gpu_k, gpu_v);
        const TestTensor poison(dtype, Shape{kBatch, kHeads, kOffset, 64});
        EXPECT_TRUE(same_bits(gpu_k.download().view().slice(2, 0, kOffset), poison));
        run(cpu.with_row("qkv_split_norm", "reference"), qkv, weight, q, k, v);
        const auto compare = [&](const GpuTensor& actual, const TestTensor& expected, std::string_view part) {
          // A sum in another order may put an element on the other side of a rounding border: one code in some.
          const testing::Tolerance& tolerance =
              expected.view().dtype() == DType::kE4M3 ? testing::kForwardQuantized : testing::kOpBf16Stored;
          EXPECT_TRUE(expect_close(actual.download().view().slice(2, kOffset, kTokens),
                                   expected.view().slice(2, kOffset, kTokens), tolerance))
              << part << " " << dtype_name(dtype) << " q " << with_q << " norm " << normed;
        };
        if (with_q) compare(gpu_q, q, "q");
        compare(gpu_k, k, "k");
        compare(gpu_v, v, "v");
      }
    }
  }
}

}  // namespace
}  // namespace octavo::ops
