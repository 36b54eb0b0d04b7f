// Row passes around oneDNN's product: weights widened to f32, and the epilogue where oneDNN has no fast one.
#include "ops/vector_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/matmul/matmul_vector.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h.
#include "ops/activation/activation-inl.h"
#include "ops/matmul/matmul_kernels.h"
#include "ops/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace octavo::ops::HWY_NAMESPACE {

void widen_elements(DType dtype, const void* from, float* to, std::int64_t begin, std::int64_t end) {
  with_any_float(dtype, from, [&](const auto* elements) HWY_ATTR {
    for_each_vector(end - begin, [&](auto d, std::int64_t i) HWY_ATTR {
      store(d, load(d, elements + begin + i), to + begin + i);
    });
  });
}

void finish_product_rows(const MatmulArgs& args, float* product, std::int64_t begin, std::int64_t end) {
  const std::int64_t rows = matmul_rows(args.out);
  const std::int64_t width = args.out.dim(-1);
  with_activation(args.epilogue.activation, [&](const auto& activate) HWY_ATTR {
    for (std::int64_t row = begin; row < end; ++row) {
      const float* value = product + row * width;
      const float* gate = matmul_gate_row(args.epilogue, row, rows);
      const float* residual = args.epilogue.residual.defined()
                                  ? static_cast<const float*>(matmul_row(args.epilogue.residual, row))
                                  : nullptr;
      with_f32_or_bf16(args.out.dtype(), matmul_row(args.out, row), [&](auto* to) HWY_ATTR {
        for_each_vector(width, [&](auto d, std::int64_t i) HWY_ATTR {
          auto result = activate(d, load(d, value + i));
          if (gate != nullptr) result = hn::Mul(result, load(d, gate + i));
          if (residual != nullptr) result = hn::Add(result, load(d, residual + i));
          store(d, result, to + i);
        });
      });
    }
  });
}

}  // namespace octavo::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace octavo::ops {

HWY_EXPORT(widen_elements);
HWY_EXPORT(finish_product_rows);

void widen_elements(DType dtype, const void* from, float* to, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(widen_elements)(dtype, from, to, begin, end);
}
void finish_product_rows(const MatmulArgs& args, float* product, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(finish_product_rows)(args, product, begin, end);
}

}  // namespace octavo::ops
#endif  // HWY_ONCE
