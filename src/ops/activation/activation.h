// Element-wise activations where no product can carry them.
#pragma once

#include "ops/activation/activation_kind.h"
#include "ops/kernel_table.h"

namespace octavo::ops {

/// out = activation(x) * multiplier (elementwise; multiplier optional: T5's gated feed-forward).
struct ActivationArgs {
  Activation activation = Activation::kNone;
  TensorView x;           // [M, D] or [B, T, D], contiguous or row-strided, f32 | bf16
  TensorView multiplier;  // same shape, or undefined
  TensorView out;         // same shape, f32 | bf16; may be x
};
void activation(ExecutionContext& context, const ActivationArgs& args);
KernelTable<ActivationArgs>& activation_table();

}  // namespace octavo::ops
