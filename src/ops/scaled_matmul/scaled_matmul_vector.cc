#include "ops/vector_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/scaled_matmul/scaled_matmul_vector.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h.
#include "ops/scaled_matmul/scaled_matmul_kernels.h"
#include "ops/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace octavo::ops::HWY_NAMESPACE {

void scale_product_row(const float* product, float row_scale, const float* column_scales, bool first, float* sum,
                       std::int64_t count) {
  for_each_vector(count, [&](auto d, std::int64_t n) HWY_ATTR {
    const auto scale = hn::Mul(hn::Set(d, row_scale), load(d, column_scales + n));
    const auto value = hn::Mul(load(d, product + n), scale);
    store(d, first ? value : hn::Add(load(d, sum + n), value), sum + n);
  });
}

void add_product_row(const float* addend, float* sum, std::int64_t count) {
  for_each_vector(count, [&](auto d, std::int64_t n)
                             HWY_ATTR { store(d, hn::Add(load(d, sum + n), load(d, addend + n)), sum + n); });
}

}  // namespace octavo::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace octavo::ops {

HWY_EXPORT(scale_product_row);
HWY_EXPORT(add_product_row);

void scale_product_row(const float* product, float row_scale, const float* column_scales, bool first, float* sum,
                       std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(scale_product_row)(product, row_scale, column_scales, first, sum, count);
}
void add_product_row(const float* addend, float* sum, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(add_product_row)(addend, sum, count);
}

}  // namespace octavo::ops
#endif  // HWY_ONCE
