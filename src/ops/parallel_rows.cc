#include "ops/parallel_rows.h"

#include <hwy/targets.h>

#include <mutex>

namespace octavo::ops {

void limit_vectors(const device::DeviceTraits& traits) {
  static std::once_flag once;
  std::call_once(once, [&traits] {
    if (!traits.has_avx512) hwy::DisableTargets(HWY_AVX3 | HWY_AVX3_DL);
  });
}

}  // namespace octavo::ops
