#include "ops/vector_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cast/cast_vector.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h.
#include "ops/cast/cast_kernels.h"
#include "ops/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace octavo::ops::HWY_NAMESPACE {

/// First element of row `row` of the flattened outer axes.
void* row_address(const TensorView& view, std::int64_t row) {
  std::int64_t offset = 0;
  for (int axis = view.rank() - 2; axis >= 0; --axis) {
    offset += row % view.dim(axis) * view.stride(axis);
    row /= view.dim(axis);
  }
  return static_cast<std::byte*>(view.data()) + offset * static_cast<std::int64_t>(dtype_size(view.dtype()));
}

void cast_rows(const CastArgs& args, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    with_any_float(args.x.dtype(), row_address(args.x, row), [&](const auto* from) HWY_ATTR {
      with_any_float(args.out.dtype(), row_address(args.out, row), [&](auto* to) HWY_ATTR {
        for_each_vector(args.x.dim(-1), [&](auto d, std::int64_t i) HWY_ATTR { store(d, load(d, from + i), to + i); });
      });
    });
  }
}

}  // namespace octavo::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace octavo::ops {

HWY_EXPORT(cast_rows);

void cast_rows(const CastArgs& args, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(cast_rows)(args, begin, end);
}

}  // namespace octavo::ops
#endif  // HWY_ONCE
