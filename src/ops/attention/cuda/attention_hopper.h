// Attention for heads of 64 on the tensor cores of sm_90a.
#pragma once

#include "ops/attention/attention.h"

namespace octavo::ops {

/// q, k, v as plan_attention_operands() gives them (f16), out in bf16, no bias, not causal.
/// Scores times score_factor * log2(e) must stay below 1000 in magnitude, which normed q and k do.
bool attention_hopper_supports(const AttentionArgs& args, const DeviceTraits& traits);
void attention_hopper(ExecutionContext& context, const AttentionArgs& args, void* scratch);

}  // namespace octavo::ops
