// The rows of the group_norm table.
#pragma once

#include "ops/group_norm/group_norm.h"

namespace octavo::ops {

void group_norm_reference(ExecutionContext& context, const GroupNormArgs& args, void* scratch);

bool group_norm_vector_supports(const GroupNormArgs& args, const DeviceTraits& traits);
std::size_t group_norm_vector_scratch_bytes(const GroupNormArgs& args, const DeviceTraits& traits);
void group_norm_vector(ExecutionContext& context, const GroupNormArgs& args, void* scratch);

}  // namespace octavo::ops
