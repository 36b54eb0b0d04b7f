// The rows of the attention table.
#pragma once

#include "ops/attention/attention.h"

namespace octavo::ops {

void attention_reference(ExecutionContext& context, const AttentionArgs& args, void* scratch);

bool attention_flash_supports(const AttentionArgs& args, const DeviceTraits& traits);
std::size_t attention_flash_scratch_bytes(const AttentionArgs& args, const DeviceTraits& traits);
void attention_flash(ExecutionContext& context, const AttentionArgs& args, void* scratch);

}  // namespace octavo::ops
