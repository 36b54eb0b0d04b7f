// The rows of the patch tables.
#pragma once

#include "ops/patch/patch.h"

namespace octavo::ops {

void patchify_reference(ExecutionContext& context, const PatchifyArgs& args, void* scratch);
void add_positions_reference(ExecutionContext& context, const AddPositionsArgs& args, void* scratch);
void unpatchify_reference(ExecutionContext& context, const UnpatchifyArgs& args, void* scratch);

/// Rows [begin, end) of patches, the flattened [B, height / 2].
void patchify_rows(const PatchifyArgs& args, std::int64_t begin, std::int64_t end);
/// Tokens [begin, end) of the flattened [B, rows * columns].
void add_positions_rows(const AddPositionsArgs& args, std::int64_t begin, std::int64_t end);
/// Rows [begin, end) of the flattened [B, height].
void unpatchify_rows(const UnpatchifyArgs& args, std::int64_t begin, std::int64_t end);

}  // namespace octavo::ops
