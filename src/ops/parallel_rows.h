// Spreads the independent rows of an op over the threads of the CPU.
#pragma once

#include <algorithm>
#include <cstdint>

#include "device/cpu/parallel_for.h"
#include "device/execution_context.h"

namespace octavo::ops {

/// Highway chooses the instruction set for the whole process. This keeps it within `traits`, so that
/// OCTAVO_MAX_ISA reaches the vectorised rows too; the first call decides, later ones cost a load.
void limit_vectors(const device::DeviceTraits& traits);

/// Calls kernel(args, begin, end) for pieces that cover [0, rows), on the device's threads; returns when all are
/// done. A row is computed by one thread whatever the split, so results do not depend on the thread count.
/// `row_elements` is the work of a row: pieces too small to be worth waking a thread stay together.
template <typename Args>
void run_rows(device::ExecutionContext& context, const Args& args, std::int64_t rows, std::int64_t row_elements,
              void (*kernel)(const Args& args, std::int64_t begin, std::int64_t end)) {
  constexpr std::int64_t kElementsPerThread = 8192;  // some 5 microseconds, what waking a thread costs
  limit_vectors(context.traits());
  const std::int64_t grain = std::max<std::int64_t>(1, kElementsPerThread / std::max<std::int64_t>(1, row_elements));
  device::parallel_for(context.traits(), rows, grain,
                       [&](std::int64_t begin, std::int64_t end) { kernel(args, begin, end); });
}

}  // namespace octavo::ops
