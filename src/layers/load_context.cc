#include "layers/load_context.h"

#include <cstring>
#include <vector>

#include "layers/weight_streamer.h"
#include "tensor/convert.h"

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
  return copy_to_device(load, TensorView(values.data(), DType::kF32, shape));
}

OwnedTensor load_bias(LoadContext& load, const std::string& name, const Shape& shape) {
  if (load.device.traits().kind == device::DeviceKind::kCpu || load.precision.activations != DType::kBF16) {
    return load_f32(load, name, shape);
  }
  const TensorView stored = load.weights.require(name, shape);
  if (!stored.defined()) return {};
  std::vector<BFloat16> values(static_cast<std::size_t>(stored.element_count()));
  convert_elements(static_cast<const std::byte*>(stored.data()), stored.dtype(),
                   reinterpret_cast<std::byte*>(values.data()), DType::kBF16, stored.element_count());
  return copy_to_device(load, TensorView(values.data(), DType::kBF16, shape));
}

OwnedTensor load_table(LoadContext& load, const std::string& name, const Shape& shape) {
  const TensorView stored = load.weights.require(name, shape);
  if (!stored.defined()) return {};
  if (load.device.traits().kind == device::DeviceKind::kCpu) return {{}, stored};
  if (load.streamer == nullptr) return copy_to_device(load, stored);
  auto buffer = load.device.allocate(stored.byte_count(), device::MemoryKind::kPinnedHost);
  if (!buffer.ok()) {
    load.note(buffer.status());
    return {};
  }
  std::memcpy(buffer->data(), stored.data(), stored.byte_count());
  OwnedTensor owned{std::move(*buffer), {}};
  owned.view = stored.moved_to(owned.buffer.data());
  return owned;
}

std::shared_ptr<WeightStreamer> place_weights(LoadContext& load, Residency residency) {
  if (residency == Residency::kDevice) return nullptr;
  auto streamer = std::make_shared<WeightStreamer>(load.device);
  load.streamer = streamer.get();
  return streamer;
}

StreamedWeight stream_weight(LoadContext& load, const TensorView& weight) {
  const auto number = load.streamer->take(weight);
  if (!number.ok()) {
    load.note(number.status());
    return {};
  }
  return {load.streamer, *number};
}

OwnedTensor copy_to_device(LoadContext& load, const TensorView& host) {
  auto buffer = load.device.allocate(host.byte_count());
  if (!buffer.ok()) {
    load.note(buffer.status());
    return {};
  }
  const auto stream = load.device.create_stream();
  load.device.copy_to_device(*stream, buffer->data(), host.data(), host.byte_count());
  stream->synchronize();  // the host's memory may go away
  OwnedTensor owned{std::move(*buffer), {}};
  owned.view = TensorView(owned.buffer.data(), host.dtype(), host.shape());
  return owned;
}

WeightForms& WeightForms::operator+=(const WeightForms& other) {
  plain += other.plain;
  w8a8 += other.w8a8;
  w8a16 += other.w8a16;
  static_inputs += other.static_inputs;
  quantized_at_load += other.quantized_at_load;
  quantizing += other.quantizing;
  return *this;
}

}  // namespace octavo::layers
