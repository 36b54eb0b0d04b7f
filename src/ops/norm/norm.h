// Row norms at the grain of the fast kernels: statistics in f32, one pass over memory.
//
// A norm that feeds a quantised product may write the product's input itself: `out` then holds codes (e4m3 | i8,
// contiguous), with a scale a token that the norm measures and writes to out_dequant_scale, or with one that is known
// beforehand and whose reciprocal out_quant_scale holds. Codes and scales are those of ops::quantize (ScaleGrain::kRow,
// kTensor) of the output rounded to bf16, bit for bit.
#pragma once

#include "ops/kernel_table.h"

namespace octavo::ops {

/// The same LN(x) under a second modulation, written in the same pass over x: a dual attention block (MMDiT-X) feeds
/// its two attentions with them. All undefined = there is none.
struct SecondModulation {
  TensorView shift;  // as the first's
  TensorView scale;
  TensorView out;            // [B, T, D], any dtype that the first may have; overlaps neither x nor the first out
  TensorView dequant_scale;  // as the first's
  TensorView quant_scale;    // as the first's
  bool defined() const { return out.defined(); }
};

/// out = LN(x) * (1 + scale) + shift, LN without affine (MMDiT), or LN(x) * weight + bias (CLIP): exactly one pair
/// or neither is defined. Variance is the biased one, eps inside the root. `second` goes with the modulated form.
struct LayerNormArgs {
  TensorView x;       // [B, T, D] f32 | bf16, outer strides allowed
  TensorView weight;  // [D] f32
  TensorView bias;    // [D] f32
  TensorView shift;   // [B, D] f32, row stride allowed: a slice of the modulation table
  TensorView scale;   // [B, D] f32
  float eps = 1e-6f;
  TensorView out;                // [B, T, D] f32 | bf16 | e4m3 | i8
  TensorView out_dequant_scale;  // [B * T] f32, contiguous, written; this or the next is there when out holds codes
  TensorView out_quant_scale;    // [1] f32, read: what values are multiplied by; codes saturate
  SecondModulation second;
};
void layer_norm(ExecutionContext& context, const LayerNormArgs& args);
KernelTable<LayerNormArgs>& layer_norm_table();

/// x += gate * y, then out = LN(x) * (1 + scale) + shift: the seam between two halves of a block in one pass.
/// `out` undefined = the residual update alone; `second` as in LayerNormArgs. What is normed is x as it is stored.
struct GateResidualNormArgs {
  TensorView x;      // [B, T, D] f32 | bf16, updated in place
  TensorView y;      // [B, T, D] f32 | bf16
  TensorView gate;   // [B, D] f32
  TensorView shift;  // [B, D] f32
  TensorView scale;  // [B, D] f32
  float eps = 1e-6f;
  TensorView out;                // [B, T, D] f32 | bf16 | e4m3 | i8
  TensorView out_dequant_scale;  // as in LayerNormArgs
  TensorView out_quant_scale;    // likewise
  SecondModulation second;
};
void gate_residual_norm(ExecutionContext& context, const GateResidualNormArgs& args);
KernelTable<GateResidualNormArgs>& gate_residual_norm_table();

/// out = x * rsqrt(mean(x^2) + eps) * weight (T5).
struct RmsNormArgs {
  TensorView x;       // [B, T, D] f32
  TensorView weight;  // [D] f32
  float eps = 1e-6f;
  TensorView out;  // [B, T, D] f32 | bf16
};
void rms_norm(ExecutionContext& context, const RmsNormArgs& args);
KernelTable<RmsNormArgs>& rms_norm_table();

/// Splits a joint projection into heads with RMS norm on q and k, written at a token offset of the joint
/// sequence: views of q, k, v are slices [B, H, T, Dh] of [B, H, S, Dh] buffers. What lies in them is rounded once,
/// after norm and factor: f32 | bf16 | f16, q and k also e4m3 codes without a scale (saturating), f16 saturates.
struct QkvSplitNormArgs {
  TensorView qkv;       // [B, T, 3 * H * Dh] f32 | bf16: q rows, then k, then v; [B, T, 2 * H * Dh] when q is undefined
  TensorView q_weight;  // [Dh] f32; undefined = no norm on q
  TensorView k_weight;  // [Dh] f32; undefined = no norm on k
  float eps = 1e-6f;
  float q_factor = 1.0f;  // of the values written: AttentionOperands
  float k_factor = 1.0f;
  TensorView q;  // [B, H, T, Dh] or undefined (last block's text stream: k and v only)
  TensorView k;  // [B, H, T, Dh]
  TensorView v;  // [B, H, T, Dh]
};
void qkv_split_norm(ExecutionContext& context, const QkvSplitNormArgs& args);
KernelTable<QkvSplitNormArgs>& qkv_split_norm_table();

}  // namespace octavo::ops
