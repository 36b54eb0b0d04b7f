// The rows of the group_norm table.
#pragma once

#include "ops/group_norm/group_norm.h"
#include "ops/group_norm/group_norm_bands.h"

namespace octavo::ops {

void group_norm_reference(ExecutionContext& context, const GroupNormArgs& args, void* scratch);

bool group_norm_vector_supports(const GroupNormArgs& args, const DeviceTraits& traits);
std::size_t group_norm_vector_scratch_bytes(const ExecutionContext& context, const GroupNormArgs& args);
void group_norm_vector(ExecutionContext& context, const GroupNormArgs& args, void* scratch);

void group_norm_measure_reference(ExecutionContext& context, const GroupNormMeasureArgs& args, void* scratch);
void group_norm_measure_vector(ExecutionContext& context, const GroupNormMeasureArgs& args, void* scratch);
/// Joins blocks in their order (Chan, Golub and LeVeque, "Algorithms for computing the sample variance"), in double.
void group_norm_join_reference(ExecutionContext& context, const GroupNormJoinArgs& args, void* scratch);
void join_group_norm_blocks(const float* statistics, std::int64_t pixels, std::int64_t channels, int groups, float eps,
                            const float* weight, float* coefficients);
void group_norm_apply_reference(ExecutionContext& context, const GroupNormApplyArgs& args, void* scratch);
void group_norm_apply_vector(ExecutionContext& context, const GroupNormApplyArgs& args, void* scratch);

}  // namespace octavo::ops
