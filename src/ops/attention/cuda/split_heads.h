// The row of qkv_split_norm that feeds attention on the GPU.
#pragma once

#include "ops/norm/norm.h"

namespace octavo::ops {

/// Heads of 64 from a contiguous bf16 projection; q, k, v of bf16, f16 or (q, k) e4m3 with dense channels.
bool split_heads_supports(const QkvSplitNormArgs& args, const DeviceTraits& traits);
void split_heads(ExecutionContext& context, const QkvSplitNormArgs& args, void* scratch);

}  // namespace octavo::ops
