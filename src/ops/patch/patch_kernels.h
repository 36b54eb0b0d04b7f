// The rows of the patch tables.
#pragma once

#include "ops/patch/patch.h"

namespace octavo::ops {

void patchify_reference(ExecutionContext& context, const PatchifyArgs& args, void* scratch);
void add_positions_reference(ExecutionContext& context, const AddPositionsArgs& args, void* scratch);
void unpatchify_reference(ExecutionContext& context, const UnpatchifyArgs& args, void* scratch);

}  // namespace octavo::ops
