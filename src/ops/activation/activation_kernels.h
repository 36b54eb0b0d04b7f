// The rows of the activation table, and what other kernels share of them.
#pragma once

#include "ops/activation/activation.h"

namespace octavo::ops {

/// One value, computed in double.
double activate_reference(Activation activation, double x);
void activation_reference(ExecutionContext& context, const ActivationArgs& args, void* scratch);

/// values[i] = activation(values[i]), vectorised; for epilogues of kernels that are not vectorised themselves.
void activate_row(Activation activation, float* values, std::int64_t count);
/// Rows [begin, end) of the flattened outer axes.
void activation_rows(const ActivationArgs& args, std::int64_t begin, std::int64_t end);

}  // namespace octavo::ops
