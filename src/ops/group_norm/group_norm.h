// group_norm: GroupNorm with affine and optional SiLU, channels last, in one op.
#pragma once

#include "ops/kernel_table.h"

namespace octavo::ops {

/// Statistics over (height, width, C / groups) of each batch row in f32; biased variance, eps inside the root.
struct GroupNormArgs {
  TensorView x;       // [B, height, width, C] f32 | bf16, contiguous
  TensorView weight;  // [C] f32
  TensorView bias;    // [C] f32
  int groups = 32;    // divides C
  float eps = 1e-6f;
  bool silu = false;
  TensorView out;  // [B, height, width, C] f32 | bf16; may be x
};
void group_norm(ExecutionContext& context, const GroupNormArgs& args);
KernelTable<GroupNormArgs>& group_norm_table();

}  // namespace octavo::ops
