// attention: out = softmax(q k^T * score_factor + bias, causal or not) v, without the S x S matrix in memory.
#pragma once

#include "ops/kernel_table.h"

namespace octavo::ops {

struct AttentionArgs {
  TensorView q;               // [B, H, Sq, Dh], outer strides allowed, f32 | bf16; or as AttentionOperands says
  TensorView k;               // [B, H, Sk, Dh], same dtype
  TensorView v;               // [B, H, Sk, Dh], same dtype; f16 beside q and k of f16, f16 | e4m3 beside those of e4m3
  TensorView bias;            // [H, Sq, Sk] f32 added to the scores (T5), or undefined
  float score_factor = 1.0f;  // 1/sqrt(Dh) for CLIP, MMDiT and VAE; 1 for T5
  float value_factor = 1.0f;  // out is multiplied by it: the dequant scale of v's codes
  bool causal = false;        // CLIP
  TensorView out;             // [B, Sq, H * Dh], outer strides allowed, f32 | bf16 | e4m3
  /// [1] f32: what values are multiplied by before they become codes (the reciprocal of a static dequant scale);
  /// defined when out is e4m3. Codes saturate.
  TensorView out_quant_scale;
};

/// Softmax and sums in f32. Each (batch row, head, query) is independent of every other query and batch row.
void attention(ExecutionContext& context, const AttentionArgs& args);
KernelTable<AttentionArgs>& attention_table();

/// What a device's fastest attention wants q, k and v to be, and what goes with that: q and k are multiplied by their
/// factors before they are rounded (QkvSplitNormArgs does both), and `score_factor` undoes it.
struct AttentionOperands {
  DType q = DType::kF32;
  DType k = DType::kF32;
  DType v = DType::kF32;
  float q_factor = 1.0f;
  float k_factor = 1.0f;
  float score_factor = 1.0f;  // for AttentionArgs: the asked for one / (q_factor * k_factor)
  bool writes_codes = false;  // out may be e4m3
};

/// `activation` and `score_factor` are what a plain attention would have. `normed`: both q and k have an RMS norm, so
/// that scores are bounded; else their range is unknown and the types stay those of the activations, as they do when a
/// row that wants these is forced. `codes`: q and k in E4M3 where the device has an attention of them and they are
/// normed: a twentieth of a step quicker, half a decibel of the velocity (docs/quality.md). For attention without bias
/// and causal mask.
AttentionOperands plan_attention_operands(const ExecutionContext& context, DType activation, std::int64_t head_width,
                                          float score_factor, bool normed, bool codes = false);
/// The same with no row forced.
AttentionOperands plan_attention_operands(const DeviceTraits& traits, DType activation, std::int64_t head_width,
                                          float score_factor, bool normed, bool codes = false);

}  // namespace octavo::ops
