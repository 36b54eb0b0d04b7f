// The rows of the activation table.
#pragma once

#include "ops/activation/activation.h"

namespace octavo::ops {

/// One value, computed in double.
double activate_reference(Activation activation, double x);
void activation_reference(ExecutionContext& context, const ActivationArgs& args, void* scratch);

}  // namespace octavo::ops
