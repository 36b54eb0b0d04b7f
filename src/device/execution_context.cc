#include "device/execution_context.h"

#include <vector>

namespace octavo::device {

void ExecutionContext::hand_to_sink(std::string_view path, const TensorView& value) {
  if (traits().kind == DeviceKind::kCpu) {
    stream_.synchronize();
    tap_->on_tensor(path, value);
    return;
  }
  // From the first element to the last, gaps between rows included.
  std::int64_t elements = value.element_count() == 0 ? 0 : 1;
  for (int axis = 0; axis < value.rank() && elements > 0; ++axis)
    elements += (value.dim(axis) - 1) * value.stride(axis);
  std::vector<std::byte> copy(static_cast<std::size_t>(elements) * dtype_size(value.dtype()));
  device_.copy_to_host(stream_, copy.data(), value.data(), copy.size());
  stream_.synchronize();
  tap_->on_tensor(path, value.moved_to(copy.data()));
}

}  // namespace octavo::device
