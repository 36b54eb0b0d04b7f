#include "device/arena.h"

#include <algorithm>

namespace octavo::device {

Status Arena::reserve(Device& device, std::size_t bytes) {
  OCTAVO_CHECK(used_ == 0, "arena is in use ({} bytes) while it is reserved", used_);
  if (bytes <= capacity_bytes()) return {};
  buffer_ = Buffer();  // give back first: the old and the new one need not fit together
  OCTAVO_ASSIGN_OR_RETURN(buffer_, device.allocate(bytes));
  return {};
}

void Arena::set_measuring(bool measuring) {
  OCTAVO_CHECK(used_ == 0, "arena is in use ({} bytes) while its mode changes", used_);
  measuring_ = measuring;
  peak_ = 0;
}

TensorView Arena::take(DType dtype, Shape shape) {
  const std::size_t bytes = static_cast<std::size_t>(shape.element_count()) * dtype_size(dtype);
  const std::size_t begin = used_;
  const std::size_t end = begin + (bytes + kAlignment - 1) / kAlignment * kAlignment;
  OCTAVO_CHECK(measuring_ || end <= capacity_bytes(), "arena of {} bytes is too small for {} {} at {}",
               capacity_bytes(), dtype_name(dtype), shape.to_string(), begin);
  used_ = end;
  peak_ = std::max(peak_, used_);
  void* data = measuring_ ? nullptr : static_cast<std::byte*>(buffer_.data()) + begin;
  return TensorView(data, dtype, shape);
}

}  // namespace octavo::device
