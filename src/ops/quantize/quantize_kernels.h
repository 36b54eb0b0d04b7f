// The rows of the quantize table.
#pragma once

#include "ops/quantize/quantize.h"

namespace octavo::ops {

void quantize_reference(ExecutionContext& context, const QuantizeArgs& args, void* scratch);

/// Rows [begin, end) of the flattened outer axes.
void quantize_rows_of(const QuantizeArgs& args, std::int64_t begin, std::int64_t end);

}  // namespace octavo::ops
