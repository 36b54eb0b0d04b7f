#include "layers/linear.h"

#include <vector>

namespace octavo::layers {

std::string Linear::input_tap(const LoadContext& load, const std::string& prefix) {
  return load.tap_label.empty() ? std::string() : load.tap_label + "." + prefix + ".input";
}

void Linear::set_weight(LoadContext& load, const TensorView& plain) {
  auto packed = ops::pack_matmul_weight(load.device, plain, load.activation_dtype);
  if (!packed.ok()) {
    load.note(packed.status());
    return;
  }
  weight_ = std::move(*packed);
}

Linear Linear::load(LoadContext& load, const std::string& prefix, std::int64_t in_features, std::int64_t out_features,
                    bool with_bias) {
  Linear linear;
  linear.input_tap_ = input_tap(load, prefix);
  linear.in_features_ = in_features;
  linear.out_features_ = out_features;
  const TensorView plain = load.weights.require(prefix + ".weight", Shape{out_features, in_features});
  if (with_bias) linear.bias_ = load_f32(load, prefix + ".bias", Shape{out_features});
  if (plain.defined()) linear.set_weight(load, plain);
  return linear;
}

Linear Linear::load_patch_embedding(LoadContext& load, const std::string& prefix, std::int64_t channels,
                                    std::int64_t out_features) {
  Linear linear;
  linear.input_tap_ = input_tap(load, prefix);
  linear.in_features_ = channels * 4;
  linear.out_features_ = out_features;
  const TensorView plain = load.weights.require(prefix + ".weight", Shape{out_features, channels, 2, 2});
  linear.bias_ = load_f32(load, prefix + ".bias", Shape{out_features});
  if (plain.defined()) linear.set_weight(load, plain.reshape(Shape{out_features, channels * 4}));
  return linear;
}

Linear Linear::load_joined(LoadContext& load, std::span<const std::string> prefixes, std::int64_t in_features,
                           std::int64_t out_features_each, bool with_bias) {
  Linear linear;
  linear.input_tap_ = input_tap(load, prefixes.front());
  linear.in_features_ = in_features;
  linear.out_features_ = out_features_each * static_cast<std::int64_t>(prefixes.size());
  std::vector<TensorView> weights;
  std::vector<OwnedTensor> biases;
  for (const std::string& prefix : prefixes) {
    weights.push_back(load.weights.require(prefix + ".weight", Shape{out_features_each, in_features}));
    if (with_bias) biases.push_back(load_f32(load, prefix + ".bias", Shape{out_features_each}));
  }
  for (const TensorView& weight : weights) {
    if (!weight.defined()) return linear;
    if (weight.dtype() != weights.front().dtype()) {
      load.note(data_corruption(prefixes.front(), "is stored in another dtype than its neighbours q, k, v"));
      return linear;
    }
  }
  const auto stream = load.device.create_stream();
  const auto join = [&](std::span<const TensorView> parts, DType dtype, Shape shape, device::Buffer& buffer) {
    std::size_t bytes = 0;
    for (const TensorView& part : parts) bytes += part.byte_count();
    auto allocated = load.device.allocate(bytes);
    if (!allocated.ok()) {
      load.note(allocated.status());
      return TensorView();
    }
    buffer = std::move(*allocated);
    auto* at = static_cast<std::byte*>(buffer.data());
    for (const TensorView& part : parts) {
      load.device.copy_to_device(*stream, at, part.data(), part.byte_count());
      at += part.byte_count();
    }
    stream->synchronize();
    return TensorView(buffer.data(), dtype, shape);
  };
  // The original layout stores them one after another already.
  bool adjacent = true;
  for (std::size_t i = 1; i < weights.size(); ++i) {
    const auto* end = static_cast<const std::byte*>(weights[i - 1].data()) + weights[i - 1].byte_count();
    adjacent = adjacent && weights[i].data() == end;
  }
  const Shape joined_shape{linear.out_features_, in_features};
  const TensorView plain = adjacent ? TensorView(weights.front().data(), weights.front().dtype(), joined_shape)
                                    : join(weights, weights.front().dtype(), joined_shape, linear.joined_);
  if (with_bias) {
    std::vector<TensorView> parts;
    for (const OwnedTensor& bias : biases) {
      if (!bias.view.defined()) return linear;
      parts.push_back(bias.view);
    }
    linear.bias_.view = join(parts, DType::kF32, Shape{linear.out_features_}, linear.bias_.buffer);
  }
  if (plain.defined()) linear.set_weight(load, plain);
  return linear;
}

void Linear::forward(ops::ExecutionContext& context, const TensorView& x, const TensorView& out,
                     const LinearExtras& extras) const {
  if (!input_tap_.empty()) context.tap(input_tap_, x);
  ops::MatmulArgs args;
  args.x = x;
  args.weight = weight_;
  args.epilogue.bias = bias_.view;
  args.epilogue.activation = extras.activation;
  args.epilogue.residual = extras.residual;
  args.epilogue.gate = extras.gate;
  args.out = out;
  ops::matmul(context, args);
}

std::size_t Linear::owned_bytes() const {
  return joined_.byte_count() + bias_.buffer.byte_count() + (weight_.packed ? weight_.packed->byte_count() : 0);
}

}  // namespace octavo::layers
