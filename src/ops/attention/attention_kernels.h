// The rows of the attention table.
#pragma once

#include "ops/attention/attention.h"

namespace octavo::ops {

/// The CUDA row that plan_attention_operands() plans for.
inline constexpr std::string_view kHopperAttentionRow = "hopper";

/// Values are neither multiplied at the end nor stored as codes: what most rows are made for.
inline bool has_plain_result(const AttentionArgs& args) {
  return args.value_factor == 1.0f && !args.out_quant_scale.defined();
}

void attention_reference(ExecutionContext& context, const AttentionArgs& args, void* scratch);

bool attention_flash_supports(const AttentionArgs& args, const DeviceTraits& traits);
std::size_t attention_flash_scratch_bytes(const ExecutionContext& context, const AttentionArgs& args);
void attention_flash(ExecutionContext& context, const AttentionArgs& args, void* scratch);

}  // namespace octavo::ops
