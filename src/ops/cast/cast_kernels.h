// The rows of the cast table.
#pragma once

#include "ops/cast/cast.h"

namespace octavo::ops {

void cast_reference(ExecutionContext& context, const CastArgs& args, void* scratch);

/// Rows [begin, end) of the flattened outer axes.
void cast_rows(const CastArgs& args, std::int64_t begin, std::int64_t end);

}  // namespace octavo::ops
