// The rows of the norm tables: the plain reference and the vectorised kernels.
#pragma once

#include "ops/norm/norm.h"

namespace octavo::ops {

void layer_norm_reference(ExecutionContext& context, const LayerNormArgs& args, void* scratch);
void gate_residual_norm_reference(ExecutionContext& context, const GateResidualNormArgs& args, void* scratch);
void rms_norm_reference(ExecutionContext& context, const RmsNormArgs& args, void* scratch);
void qkv_split_norm_reference(ExecutionContext& context, const QkvSplitNormArgs& args, void* scratch);

}  // namespace octavo::ops
