// Look-ups and the timestep's sinusoid.
#pragma once

#include "ops/kernel_table.h"

namespace octavo::ops {

/// out[b, t] = table[ids[b, t]] + positions[t].
struct EmbeddingArgs {
  TensorView ids;        // [B, T] i32, each in [0, rows of table)
  TensorView table;      // [V, D] f32 | f16 | bf16
  TensorView positions;  // [>= T, D] f32 | f16 | bf16, or undefined (T5)
  TensorView out;        // [B, T, D] f32
};
void embedding(ExecutionContext& context, const EmbeddingArgs& args);
KernelTable<EmbeddingArgs>& embedding_table();

/// out[i] = [cos(t_i f_0) .. cos(t_i f_127), sin(t_i f_0) .. sin(t_i f_127)], f_k = exp(-ln(10000) k / 128)
/// (diffusers get_timestep_embedding with flip_sin_to_cos, downscale_freq_shift 0). Arithmetic in f32 as there.
struct TimestepEmbeddingArgs {
  TensorView timesteps;  // [M] f32: sigma * 1000
  TensorView out;        // [M, 256] f32 (any even width: half cosines, half sines)
};
void timestep_embedding(ExecutionContext& context, const TimestepEmbeddingArgs& args);
KernelTable<TimestepEmbeddingArgs>& timestep_embedding_table();

/// T5's relative position bias for a sequence of length T: out[h, q, k] = table[bucket(k - q), h], bidirectional,
/// 32 buckets, largest distance 128 (transformers T5Attention._relative_position_bucket).
struct RelativeBiasArgs {
  TensorView table;  // [32, H] f32 | f16 | bf16
  TensorView out;    // [H, T, T] f32
};
void relative_bias(ExecutionContext& context, const RelativeBiasArgs& args);
KernelTable<RelativeBiasArgs>& relative_bias_table();

}  // namespace octavo::ops
