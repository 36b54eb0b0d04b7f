#include "tensor/tensor.h"

namespace octavo {

std::string Shape::to_string() const {
  std::string text = "[";
  for (int axis = 0; axis < rank_; ++axis) {
    if (axis > 0) text += ", ";
    text += std::to_string(extents_[axis]);
  }
  return text + "]";
}

TensorView::TensorView(void* data, DType dtype, Shape shape) : data_(data), dtype_(dtype), shape_(shape) {
  std::int64_t stride = 1;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    strides_[axis] = stride;
    stride *= shape[axis];
  }
}

bool TensorView::contiguous() const {
  std::int64_t expected = 1;
  for (int axis = rank() - 1; axis >= 0; --axis) {
    if (shape_[axis] != 1 && strides_[axis] != expected) return false;
    expected *= shape_[axis];
  }
  return true;
}

TensorView TensorView::slice(int axis, std::int64_t begin, std::int64_t count) const {
  if (axis < 0) axis += rank();
  OCTAVO_CHECK(axis >= 0 && axis < rank(), "axis {} of rank {}", axis, rank());
  OCTAVO_CHECK(begin >= 0 && count >= 0 && begin + count <= shape_[axis], "slice {}+{} of {} on axis {}", begin, count,
               shape_.to_string(), axis);
  TensorView result = *this;
  Shape shape;
  for (int i = 0; i < rank(); ++i) shape.append(i == axis ? count : shape_[i]);
  result.shape_ = shape;
  if (data_ != nullptr) {  // a view from a measuring arena has no memory to point into
    result.data_ =
        static_cast<std::byte*>(data_) + begin * strides_[axis] * static_cast<std::int64_t>(dtype_size(dtype_));
  }
  return result;
}

TensorView TensorView::reshape(Shape shape) const {
  OCTAVO_CHECK(contiguous(), "reshape of a strided view {}", shape_.to_string());
  OCTAVO_CHECK(shape.element_count() == element_count(), "reshape {} to {}", shape_.to_string(), shape.to_string());
  return TensorView(data_, dtype_, shape);
}

}  // namespace octavo
