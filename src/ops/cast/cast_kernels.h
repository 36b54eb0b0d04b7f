// The rows of the cast table.
#pragma once

#include "ops/cast/cast.h"

namespace octavo::ops {

void cast_reference(ExecutionContext& context, const CastArgs& args, void* scratch);

}  // namespace octavo::ops
