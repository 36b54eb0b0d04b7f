// Element-wise activations where no product can carry them.
#pragma once

#include "ops/activation/activation_kind.h"
#include "ops/kernel_table.h"

namespace octavo::ops {

/// out = activation(x) * multiplier (elementwise; multiplier optional: T5's gated feed-forward). An `out` of codes is
/// what ops::quantize (ScaleGrain::kRow) makes of the result rounded to bf16, bit for bit: a product's input.
struct ActivationArgs {
  Activation activation = Activation::kNone;
  TensorView x;                  // [M, D] or [B, T, D], contiguous or row-strided, f32 | bf16
  TensorView multiplier;         // same shape, or undefined
  TensorView out;                // same shape, f32 | bf16 (may be x), or e4m3 | i8 (contiguous)
  TensorView out_dequant_scale;  // f32, contiguous, one a row of out; defined when out holds codes
};
void activation(ExecutionContext& context, const ActivationArgs& args);
KernelTable<ActivationArgs>& activation_table();

}  // namespace octavo::ops
