// Latents to tokens and back, patch size 2.
#pragma once

#include "ops/kernel_table.h"

namespace octavo::ops {

/// out[b, (y, x), (c, dy, dx)] = latents[b, c, 2y + dy, 2x + dx]: the rows that the patch convolution multiplies.
/// Row b of `out` reads latents row b % latents.dim(0): guidance's two branches share one latent.
struct PatchifyArgs {
  TensorView latents;  // [B', C, height, width] f32, even sides; B % B' == 0
  TensorView out;      // [B, height/2 * width/2, 4C] f32 | bf16
};
void patchify(ExecutionContext& context, const PatchifyArgs& args);
KernelTable<PatchifyArgs>& patchify_table();

/// x[b, (y, x)] += table[top + y, left + x]: the centre crop of the stored position table.
struct AddPositionsArgs {
  TensorView x;      // [B, rows * columns, D] f32 | bf16, updated in place
  TensorView table;  // [P, P, D] f32 | f16 | bf16
  int rows = 0;      // patches down; top = (P - rows) / 2
  int columns = 0;   // patches across; left = (P - columns) / 2
};
void add_positions(ExecutionContext& context, const AddPositionsArgs& args);
KernelTable<AddPositionsArgs>& add_positions_table();

/// out[b, c, 2y + dy, 2x + dx] = tokens[b, (y, x), (dy, dx, c)] (c fastest: not patchify's order).
struct UnpatchifyArgs {
  TensorView tokens;  // [B, height/2 * width/2, 4C] f32
  TensorView out;     // [B, C, height, width] f32
};
void unpatchify(ExecutionContext& context, const UnpatchifyArgs& args);
KernelTable<UnpatchifyArgs>& unpatchify_table();

}  // namespace octavo::ops
