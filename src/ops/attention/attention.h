// attention: out = softmax(q k^T * score_factor + bias, causal or not) v, without the S x S matrix in memory.
#pragma once

#include "ops/kernel_table.h"

namespace octavo::ops {

struct AttentionArgs {
  TensorView q;               // [B, H, Sq, Dh], outer strides allowed, f32 | bf16
  TensorView k;               // [B, H, Sk, Dh], same dtype
  TensorView v;               // [B, H, Sk, Dh], same dtype
  TensorView bias;            // [H, Sq, Sk] f32 added to the scores (T5), or undefined
  float score_factor = 1.0f;  // 1/sqrt(Dh) for CLIP, MMDiT and VAE; 1 for T5
  bool causal = false;        // CLIP
  TensorView out;             // [B, Sq, H * Dh], outer strides allowed, f32 | bf16
};

/// Softmax and sums in f32. Each (batch row, head, query) is independent of every other query and batch row.
void attention(ExecutionContext& context, const AttentionArgs& args);
KernelTable<AttentionArgs>& attention_table();

}  // namespace octavo::ops
