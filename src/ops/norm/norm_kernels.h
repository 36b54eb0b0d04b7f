// The rows of the norm tables: the plain reference and the vectorised kernels.
#pragma once

#include "ops/norm/norm.h"

namespace octavo::ops {

void layer_norm_reference(ExecutionContext& context, const LayerNormArgs& args, void* scratch);
void gate_residual_norm_reference(ExecutionContext& context, const GateResidualNormArgs& args, void* scratch);
void rms_norm_reference(ExecutionContext& context, const RmsNormArgs& args, void* scratch);
void qkv_split_norm_reference(ExecutionContext& context, const QkvSplitNormArgs& args, void* scratch);

/// Rows [begin, end) of the flattened [B, T], vectorised; each row is computed by itself in a fixed order.
void layer_norm_rows(const LayerNormArgs& args, std::int64_t begin, std::int64_t end);
void gate_residual_norm_rows(const GateResidualNormArgs& args, std::int64_t begin, std::int64_t end);
void rms_norm_rows(const RmsNormArgs& args, std::int64_t begin, std::int64_t end);
void qkv_split_norm_rows(const QkvSplitNormArgs& args, std::int64_t begin, std::int64_t end);

}  // namespace octavo::ops
