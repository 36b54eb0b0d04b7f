// The list of every op of the program: one line an op, read by --kernel validation, the bench and the tests.
#pragma once

#include <vector>

#include "ops/kernel_table.h"

namespace octavo::ops {

/// Sorted by op name.
std::vector<const KernelTableBase*> all_tables();

/// kInvalidArgument naming the op or row that does not exist.
Status check_overrides(const device::KernelOverrides& overrides);

}  // namespace octavo::ops
