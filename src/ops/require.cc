#include "ops/require.h"

#include <algorithm>
#include <string>

#include "tensor/quantized.h"

namespace octavo::ops {

void require_shape(std::string_view op, std::string_view argument, const TensorView& view, const Shape& shape) {
  OCTAVO_CHECK(view.shape() == shape, "op {}: {} is {}, expected {}", op, argument, view.shape().to_string(),
               shape.to_string());
}

void require_rank(std::string_view op, std::string_view argument, const TensorView& view, int rank) {
  OCTAVO_CHECK(view.rank() == rank, "op {}: {} is {}, expected rank {}", op, argument, view.shape().to_string(), rank);
}

void require_dtype(std::string_view op, std::string_view argument, const TensorView& view,
                   std::initializer_list<DType> allowed) {
  if (std::find(allowed.begin(), allowed.end(), view.dtype()) != allowed.end()) return;
  std::string names;
  for (const DType dtype : allowed) names += (names.empty() ? "" : " or ") + std::string(dtype_name(dtype));
  OCTAVO_CHECK(false, "op {}: {} is {}, expected {}", op, argument, dtype_name(view.dtype()), names);
}

void require_contiguous(std::string_view op, std::string_view argument, const TensorView& view) {
  OCTAVO_CHECK(view.contiguous(), "op {}: {} {} is not contiguous", op, argument, view.shape().to_string());
}

void require_row_scales(std::string_view op, std::string_view argument, const TensorView& out,
                        const TensorView& scales) {
  OCTAVO_CHECK(is_quantized(out.dtype()) == scales.defined(), "op {}: the scales of {} come with codes, it is {}", op,
               argument, dtype_name(out.dtype()));
  if (!scales.defined()) return;
  require_contiguous(op, argument, out);
  const std::string name = std::string(argument) + "'s scales";
  require_dtype(op, name, scales, {DType::kF32});
  require_contiguous(op, name, scales);
  require_shape(op, name, scales, Shape{out.dim(-1) == 0 ? 0 : out.element_count() / out.dim(-1)});
}

void require_quant_scale(std::string_view op, const TensorView& out, const TensorView& quant_scale) {
  OCTAVO_CHECK(is_quantized(out.dtype()) == quant_scale.defined(),
               "op {}: out is {}, and out_quant_scale comes with codes", op, dtype_name(out.dtype()));
  if (!quant_scale.defined()) return;
  require_dtype(op, "out_quant_scale", quant_scale, {DType::kF32});
  require_shape(op, "out_quant_scale", quant_scale, Shape{1});
}

}  // namespace octavo::ops
