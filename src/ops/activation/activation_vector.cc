#include "ops/vector_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/activation/activation_vector.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h.
#include "ops/activation/activation-inl.h"
#include "ops/activation/activation_kernels.h"
#include "ops/rows.h"
#include "ops/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace octavo::ops::HWY_NAMESPACE {

void activate_in_place(Activation kind, float* values, std::int64_t count) {
  with_activation(kind, [&](const auto& activate) HWY_ATTR {
    for_each_vector(count,
                    [&](auto d, std::int64_t i) HWY_ATTR { store(d, activate(d, load(d, values + i)), values + i); });
  });
}

void* element(DType dtype, void* row, std::int64_t i) {
  return static_cast<std::byte*>(row) + i * static_cast<std::int64_t>(dtype_size(dtype));
}

/// The row is brought into a small buffer as float, a piece at a time, so that every dtype shares one loop.
void activation_row(const ActivationArgs& args, void* x, void* multiplier, void* out) {
  constexpr std::int64_t kPiece = 512;
  HWY_ALIGN float buffer[kPiece];
  const std::int64_t width = args.x.dim(-1);
  for (std::int64_t begin = 0; begin < width; begin += kPiece) {
    const std::int64_t count = width - begin < kPiece ? width - begin : kPiece;
    with_f32_or_bf16(args.x.dtype(), element(args.x.dtype(), x, begin), [&](const auto* from) HWY_ATTR {
      for_each_vector(count, [&](auto d, std::int64_t i) HWY_ATTR { store(d, load(d, from + i), buffer + i); });
    });
    activate_in_place(args.activation, buffer, count);
    if (multiplier != nullptr) {
      const DType dtype = args.multiplier.dtype();
      with_f32_or_bf16(dtype, element(dtype, multiplier, begin), [&](const auto* from) HWY_ATTR {
        for_each_vector(count, [&](auto d, std::int64_t i)
                                   HWY_ATTR { store(d, hn::Mul(load(d, buffer + i), load(d, from + i)), buffer + i); });
      });
    }
    with_f32_or_bf16(args.out.dtype(), element(args.out.dtype(), out, begin), [&](auto* to) HWY_ATTR {
      for_each_vector(count, [&](auto d, std::int64_t i) HWY_ATTR { store(d, load(d, buffer + i), to + i); });
    });
  }
}

void activation_rows(const ActivationArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t rows = args.x.dim(-2);
  const auto address = [&](const TensorView& view, std::int64_t row) {
    return view.rank() == 3 ? Row::address(view, {row / rows, row % rows}) : Row::address(view, {row});
  };
  for (std::int64_t row = begin; row < end; ++row) {
    activation_row(args, address(args.x, row), args.multiplier.defined() ? address(args.multiplier, row) : nullptr,
                   address(args.out, row));
  }
}

}  // namespace octavo::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace octavo::ops {

HWY_EXPORT(activate_in_place);
HWY_EXPORT(activation_rows);

void activate_row(Activation activation, float* values, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(activate_in_place)(activation, values, count);
}

void activation_rows(const ActivationArgs& args, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(activation_rows)(args, begin, end);
}

}  // namespace octavo::ops
#endif  // HWY_ONCE
