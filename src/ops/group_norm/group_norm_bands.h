// group_norm in three steps, for a picture that is only ever seen in bands of rows: measure every band, join what was
// measured, apply it to every band. The same bits as group_norm over the whole picture.
#pragma once

#include "ops/group_norm/group_norm_plan.h"
#include "ops/kernel_table.h"

namespace octavo::ops {

/// What a band adds to the statistics: for each block of kBlockPixels pixels the mean of every channel, then the sum of
/// squared deviations from it.
struct GroupNormMeasureArgs {
  TensorView x;                  // [1, rows, width, C] f32 | bf16, contiguous
  std::int64_t first_pixel = 0;  // of x in the picture; a multiple of kBlockPixels
  TensorView statistics;         // [blocks of the picture, 2, C] f32; the band's blocks are written
};
void group_norm_measure(ExecutionContext& context, const GroupNormMeasureArgs& args);
KernelTable<GroupNormMeasureArgs>& group_norm_measure_table();

/// The blocks of a whole picture as each channel's mean and weight / deviation of its group.
struct GroupNormJoinArgs {
  TensorView statistics;    // [blocks, 2, C] f32
  std::int64_t pixels = 0;  // of the picture
  TensorView weight;        // [C] f32
  int groups = 32;
  float eps = 1e-6f;
  TensorView coefficients;  // [2, C] f32
};
void group_norm_join(ExecutionContext& context, const GroupNormJoinArgs& args);
KernelTable<GroupNormJoinArgs>& group_norm_join_table();

/// out = (x - mean) * coefficient + bias, then SiLU if asked.
struct GroupNormApplyArgs {
  TensorView x;             // [1, rows, width, C] f32 | bf16, contiguous
  TensorView coefficients;  // [2, C] f32
  TensorView bias;          // [C] f32
  bool silu = false;
  TensorView out;  // as x in shape, f32 | bf16; may be x
};
void group_norm_apply(ExecutionContext& context, const GroupNormApplyArgs& args);
KernelTable<GroupNormApplyArgs>& group_norm_apply_table();

}  // namespace octavo::ops
