// Attention for heads of 64 on the tensor cores of sm_90a.
#pragma once

#include "ops/attention/attention.h"

namespace octavo::ops {

/// q, k, v in f16, as plan_attention_operands() gives them, or q and k in E4M3 beside v in f16, their static factors in
/// score_factor; out in bf16 or as E4M3 codes, no bias, not causal.
/// Scores times score_factor * log2(e) must stay below 1000 in magnitude, which normed q and k do.
bool attention_hopper_supports(const AttentionArgs& args, const DeviceTraits& traits);
void attention_hopper(ExecutionContext& context, const AttentionArgs& args, void* scratch);

}  // namespace octavo::ops
