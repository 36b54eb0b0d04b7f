#include "layers/load_context.h"

#include <vector>

namespace octavo::layers {
namespace {

float element(const TensorView& view, std::int64_t index) {
  switch (view.dtype()) {
    case DType::kF16:
      return to_float(view.as<Float16>()[index]);
    case DType::kBF16:
      return to_float(view.as<BFloat16>()[index]);
    default:
      return view.f32()[index];
  }
}

}  // namespace

OwnedTensor load_f32(LoadContext& load, const std::string& name, const Shape& shape) {
  const TensorView stored = load.weights.require(name, shape);
  if (!stored.defined()) return {};
  std::vector<float> values(static_cast<std::size_t>(stored.element_count()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = element(stored, static_cast<std::int64_t>(i));
  const std::size_t bytes = values.size() * sizeof(float);
  auto buffer = load.device.allocate(bytes);
  if (!buffer.ok()) {
    load.note(buffer.status());
    return {};
  }
  const auto stream = load.device.create_stream();
  load.device.copy_to_device(*stream, buffer->data(), values.data(), bytes);
  stream->synchronize();  // `values` goes away
  OwnedTensor owned{std::move(*buffer), {}};
  owned.view = TensorView(owned.buffer.data(), DType::kF32, shape);
  return owned;
}

}  // namespace octavo::layers
