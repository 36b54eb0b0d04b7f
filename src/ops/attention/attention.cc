#include "ops/attention/attention.h"

#include <numbers>

#include "ops/attention/attention_kernels.h"
#include "ops/attention/attention_plan.h"
#include "ops/require.h"

namespace octavo::ops {

AttentionPlan plan_attention(const AttentionArgs& args, const DeviceTraits& traits) {
  const std::int64_t heads = args.q.dim(0) * args.q.dim(1);
  const std::int64_t width = args.q.dim(3);
  AttentionPlan plan;
  plan.bf16 = args.q.dtype() == DType::kBF16 && traits.has_avx512_bf16;
  plan.depth = plan.bf16 ? width / 2 : width;
  plan.panels = (args.k.dim(2) + kPanelKeys - 1) / kPanelKeys;
  plan.query_tiles = (args.q.dim(2) + kQueryTile - 1) / kQueryTile;
  const auto padded_elements = static_cast<std::size_t>(heads * plan.panels * kPanelKeys * width);
  plan.key_bytes = padded_elements * (plan.bf16 ? sizeof(BFloat16) : sizeof(float));
  if (args.v.dtype() == DType::kBF16) plan.value_bytes = plan.key_bytes;
  return plan;
}

bool attention_flash_supports(const AttentionArgs& args, const DeviceTraits& traits) {
  const std::int64_t width = args.q.dim(3);
  // The products read bf16 q and k as pairs: rows must begin on a whole pair.
  const bool whole_pairs = args.q.dtype() == DType::kF32 || (args.q.stride(2) % 2 == 0 && args.k.stride(2) % 2 == 0);
  const bool plain = args.q.dtype() == DType::kF32 || args.q.dtype() == DType::kBF16;
  return plain && has_plain_result(args) && traits.has_avx2 && width % 16 == 0 && width <= kMaxHeadWidth && whole_pairs;
}

std::size_t attention_flash_scratch_bytes(const ExecutionContext& context, const AttentionArgs& args) {
  const AttentionPlan plan = plan_attention(args, context.traits());
  return plan.key_bytes + plan.value_bytes;
}

KernelTable<AttentionArgs>& attention_table() {
  static KernelTable<AttentionArgs> table("attention", {{.name = "flash",
                                                         .supports = attention_flash_supports,
                                                         .scratch_bytes = attention_flash_scratch_bytes,
                                                         .run = attention_flash},
                                                        {.name = "reference", .run = attention_reference}});
  return table;
}

AttentionOperands plan_attention_operands(const ExecutionContext& context, DType activation, std::int64_t head_width,
                                          float score_factor, bool normed, bool codes) {
  const std::string_view forced = context.kernel_override("attention");
  const bool free = forced.empty() || forced == kHopperAttentionRow;
  return plan_attention_operands(context.traits(), activation, head_width, score_factor, normed && free, codes);
}

AttentionOperands plan_attention_operands(const DeviceTraits& traits, DType activation, std::int64_t head_width,
                                          float score_factor, bool normed, bool codes) {
  if (traits.kind != DeviceKind::kCuda || traits.compute_capability != 90 || head_width != 64 || !normed ||
      activation != DType::kBF16) {
    return {.q = activation, .k = activation, .v = activation, .score_factor = score_factor};
  }
  if (codes) {
    // E4M3 is as exact from 2^-6 on as everywhere, and ends at 448: for values of deviation 1 times 4, bounded by 32
    // times the norm's weight.
    constexpr float kFactor = 4.0f;
    return {.q = DType::kE4M3,
            .k = DType::kE4M3,
            .v = DType::kF16,
            .q_factor = kFactor,
            .k_factor = kFactor,
            .score_factor = score_factor / (kFactor * kFactor),
            .writes_codes = true};
  }
  // f16 has three bits more than bf16, and the range that normed q and k need. With log2(e) inside q, scores are
  // exponents of two.
  return {.q = DType::kF16,
          .k = DType::kF16,
          .v = DType::kF16,
          .q_factor = score_factor * std::numbers::log2e_v<float>,
          .score_factor = std::numbers::ln2_v<float>,
          .writes_codes = true};
}

void attention(ExecutionContext& context, const AttentionArgs& args) {
  constexpr std::string_view op = "attention";
  require_rank(op, "q", args.q, 4);
  require_dtype(op, "q", args.q, {DType::kF32, DType::kBF16, DType::kF16, DType::kE4M3});
  const std::int64_t batch = args.q.dim(0);
  const std::int64_t heads = args.q.dim(1);
  const std::int64_t width = args.q.dim(3);
  require_rank(op, "k", args.k, 4);
  require_shape(op, "k", args.k, Shape{batch, heads, args.k.dim(2), width});
  require_dtype(op, "k", args.k, {args.q.dtype()});
  require_shape(op, "v", args.v, args.k.shape());
  if (args.q.dtype() == DType::kE4M3) {
    require_dtype(op, "v", args.v, {DType::kF16, DType::kE4M3});
  } else {
    require_dtype(op, "v", args.v, {args.q.dtype()});
  }
  OCTAVO_CHECK(args.k.dim(2) > 0 && width > 0, "op attention: no keys in k {}", args.k.shape().to_string());
  if (args.bias.defined()) {
    require_shape(op, "bias", args.bias, Shape{heads, args.q.dim(2), args.k.dim(2)});
    require_dtype(op, "bias", args.bias, {DType::kF32});
  }
  require_shape(op, "out", args.out, Shape{batch, args.q.dim(2), heads * width});
  require_dtype(op, "out", args.out, {DType::kF32, DType::kBF16, DType::kE4M3});
  require_quant_scale(op, args.out, args.out_quant_scale);
  if (args.out.element_count() == 0) return;
  attention_table().dispatch(context, args);
}

}  // namespace octavo::ops
