// cast: the same values in another dtype or place.
#pragma once

#include "ops/kernel_table.h"

namespace octavo::ops {

/// Copies and converts, f32 | f16 | bf16 to f32 | bf16 | f16, round to nearest even. Outer strides allowed.
struct CastArgs {
  TensorView x;    // rank 1 to 4
  TensorView out;  // same shape
};
void cast(ExecutionContext& context, const CastArgs& args);
KernelTable<CastArgs>& cast_table();

}  // namespace octavo::ops
