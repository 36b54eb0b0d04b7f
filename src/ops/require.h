// Argument checks shared by the ops: a wrong shape or dtype is a programmer's error and names op and argument.
#pragma once

#include <initializer_list>
#include <string_view>

#include "tensor/tensor.h"

namespace octavo::ops {

/// `op` and `argument` name the culprit in the message ("layer_norm", "out").
void require_shape(std::string_view op, std::string_view argument, const TensorView& view, const Shape& shape);
void require_rank(std::string_view op, std::string_view argument, const TensorView& view, int rank);
void require_dtype(std::string_view op, std::string_view argument, const TensorView& view,
                   std::initializer_list<DType> allowed);
void require_contiguous(std::string_view op, std::string_view argument, const TensorView& view);
/// An output that may hold codes: `scales`, one f32 a row of it, are there exactly when it does.
void require_row_scales(std::string_view op, std::string_view argument, const TensorView& out,
                        const TensorView& scales);

/// An output that may hold codes of a scale known beforehand: `quant_scale`, f32 [1], is there exactly when it does.
void require_quant_scale(std::string_view op, const TensorView& out, const TensorView& quant_scale);

}  // namespace octavo::ops
