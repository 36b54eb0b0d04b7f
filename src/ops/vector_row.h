// When the vectorised rows may run.
#pragma once

#include "ops/kernel_table.h"

namespace octavo::ops {

/// They are compiled for AVX2 and AVX-512; below that the reference is as fast.
template <typename Args>
bool has_vectors(const Args&, const DeviceTraits& traits) {
  return traits.has_avx2;
}

}  // namespace octavo::ops
