#include "layers/linear.h"

#include <algorithm>
#include <vector>

#include "layers/weight_streamer.h"
#include "tensor/convert.h"

namespace octavo::layers {

std::string Linear::input_tap(const LoadContext& load, const std::string& prefix) {
  return load.tap_label.empty() ? std::string() : load.tap_label + "." + prefix + ".input";
}

bool Linear::take_codes(LoadContext& load, std::span<const std::string> prefixes, std::int64_t out_features_each) {
  if (load.precision.weights == WeightPrecision::kWidened) return false;
  const auto coded =
      std::ranges::count_if(prefixes, [&load](const auto& one) { return load.weights.is_quantized(one); });
  if (coded != std::ssize(prefixes)) return false;
  std::vector<weights::QuantizedWeight> codes;
  for (const std::string& prefix : prefixes) {
    auto one = load.weights.require_quantized(prefix, Shape{out_features_each, in_features_});
    if (one) codes.push_back(std::move(*one));
  }
  if (codes.size() != prefixes.size()) return true;  // recorded
  if (!std::ranges::all_of(codes, [&load](const auto& one) { return QuantizedProduct::takes(load, one); })) {
    return false;
  }
  quantized_ = QuantizedProduct::from_codes(load, prefixes, codes);
  if (quantized_) count_forms(load, static_cast<int>(coded));
  return true;
}

void Linear::count_forms(LoadContext& load, int layers) const {
  (quantized_->quantizes_input() ? load.forms.w8a8 : load.forms.w8a16) += layers;
  if (quantized_->input_scale().defined()) load.forms.static_inputs += layers;
}

void Linear::set_weight(LoadContext& load, std::span<const std::string> prefixes, TensorView plain) {
  const auto layers = static_cast<int>(prefixes.size());
  if (load.device.traits().kind != device::DeviceKind::kCpu && joined_.data() == nullptr) {
    OwnedTensor uploaded = copy_to_device(load, plain);
    if (!uploaded.view.defined()) return;
    joined_ = std::move(uploaded.buffer);
    plain = uploaded.view;
  }
  const bool asks = load.precision.weights == WeightPrecision::kQuantized ||
                    load.precision.weights == WeightPrecision::kWeightsQuantized;
  if (asks && load.at_load != AtLoad::kNothing && !load.weights.provenance()) {
    quantized_ = QuantizedProduct::quantize(load, prefixes, plain);
    joined_ = {};
    if (!quantized_) return;
    count_forms(load, layers);
    load.forms.quantized_at_load += layers;
    return;
  }
  auto packed = ops::pack_matmul_weight(load.device, plain, load.precision.activations);
  if (!packed.ok()) {
    load.note(packed.status());
    return;
  }
  weight_ = std::move(*packed);
  if (weight_.plain.data() != joined_.data()) joined_ = {};  // the backend made its own of it
  if (load.streamer != nullptr) {
    streamed_ = stream_weight(load, weight_.plain);
    weight_.packed.reset();
    joined_ = {};
  }
  load.forms.plain += layers;
}

Linear Linear::load(LoadContext& load, const std::string& prefix, std::int64_t in_features, std::int64_t out_features,
                    bool with_bias) {
  Linear linear;
  linear.input_tap_ = input_tap(load, prefix);
  linear.in_features_ = in_features;
  linear.out_features_ = out_features;
  if (with_bias) linear.bias_ = load_bias(load, prefix + ".bias", Shape{out_features});
  const std::span<const std::string> prefixes(&prefix, 1);
  if (linear.take_codes(load, prefixes, out_features)) return linear;
  const TensorView plain = load.weights.require(prefix + ".weight", Shape{out_features, in_features});
  if (plain.defined()) linear.set_weight(load, prefixes, plain);
  return linear;
}

Linear Linear::load_patch_embedding(LoadContext& load, const std::string& prefix, std::int64_t channels,
                                    std::int64_t out_features) {
  Linear linear;
  linear.input_tap_ = input_tap(load, prefix);
  linear.in_features_ = channels * 4;
  linear.out_features_ = out_features;
  const TensorView plain = load.weights.require(prefix + ".weight", Shape{out_features, channels, 2, 2});
  linear.bias_ = load_bias(load, prefix + ".bias", Shape{out_features});
  if (plain.defined()) linear.set_weight(load, {&prefix, 1}, plain.reshape(Shape{out_features, channels * 4}));
  return linear;
}

Linear Linear::load_joined(LoadContext& load, std::span<const std::string> prefixes, std::int64_t in_features,
                           std::int64_t out_features_each, bool with_bias) {
  Linear linear;
  linear.input_tap_ = input_tap(load, prefixes.front());
  linear.in_features_ = in_features;
  linear.out_features_ = out_features_each * static_cast<std::int64_t>(prefixes.size());
  std::vector<OwnedTensor> biases;
  for (const std::string& prefix : prefixes) {
    if (with_bias) biases.push_back(load_bias(load, prefix + ".bias", Shape{out_features_each}));
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
  if (with_bias) {
    std::vector<TensorView> parts;
    for (const OwnedTensor& bias : biases) {
      if (bias.view.defined()) parts.push_back(bias.view);
    }
    if (parts.size() == biases.size()) {
      linear.bias_.view = join(parts, parts.front().dtype(), Shape{linear.out_features_}, linear.bias_.buffer);
    }
  }
  if (linear.take_codes(load, prefixes, out_features_each)) return linear;
  std::vector<TensorView> weights;
  for (const std::string& prefix : prefixes) {
    weights.push_back(load.weights.require(prefix + ".weight", Shape{out_features_each, in_features}));
  }
  if (!std::ranges::all_of(weights, [](const TensorView& one) { return one.defined(); })) return linear;
  const DType dtype = weights.front().dtype();
  std::vector<std::vector<float>> widened;  // of weights that differ in their type: f32 holds all of them
  if (!std::ranges::all_of(weights, [dtype](const TensorView& one) { return one.dtype() == dtype; })) {
    for (TensorView& weight : weights) {
      auto& values = widened.emplace_back(static_cast<std::size_t>(weight.element_count()));
      convert_elements(static_cast<const std::byte*>(weight.data()), weight.dtype(),
                       reinterpret_cast<std::byte*>(values.data()), DType::kF32, weight.element_count());
      weight = TensorView(values.data(), DType::kF32, weight.shape());
    }
  }
  // The original layout stores them one after another already.
  bool adjacent = widened.empty();
  for (std::size_t i = 1; i < weights.size(); ++i) {
    const auto* end = static_cast<const std::byte*>(weights[i - 1].data()) + weights[i - 1].byte_count();
    adjacent = adjacent && weights[i].data() == end;
  }
  const Shape joined_shape{linear.out_features_, in_features};
  const TensorView plain = adjacent ? TensorView(weights.front().data(), weights.front().dtype(), joined_shape)
                                    : join(weights, weights.front().dtype(), joined_shape, linear.joined_);
  if (plain.defined()) linear.set_weight(load, prefixes, plain);
  return linear;
}

LinearInput Linear::input_in(const ops::ExecutionContext& context, const TensorView& buffer, Shape shape,
                             DType plain_dtype) const {
  LinearInput input;
  // Fused codes are those of activations in bf16.
  if (!quantized_ || context.tapped() || plain_dtype != DType::kBF16 ||
      !quantized_->takes_fused_codes(context.traits())) {
    input.plain = TensorView(buffer.data(), plain_dtype, shape);
    OCTAVO_CHECK(input.plain.byte_count() <= buffer.byte_count(), "an input of {} in {} bytes", shape.to_string(),
                 buffer.byte_count());
    return input;
  }
  input.codes.codes = TensorView(buffer.data(), quantized_->input_format(), shape);
  std::size_t bytes = input.codes.codes.byte_count();
  if (quantized_->input_quant_scale().defined()) {
    input.codes.grain = ScaleGrain::kTensor;
    input.codes.dequant_scale = quantized_->input_scale();
    input.quant_scale = quantized_->input_quant_scale();
  } else {
    // The codes' scales behind them.
    input.codes.grain = ScaleGrain::kRow;
    const std::size_t codes_bytes = (bytes + 255) / 256 * 256;
    auto* scales = static_cast<std::byte*>(buffer.data());
    if (scales != nullptr) scales += codes_bytes;  // null in a dry run
    input.codes.dequant_scale = TensorView(static_cast<void*>(scales), DType::kF32, Shape{input.codes.rows()});
    bytes = codes_bytes + input.codes.dequant_scale.byte_count();
  }
  OCTAVO_CHECK(bytes <= buffer.byte_count(), "codes of {} in {} bytes", shape.to_string(), buffer.byte_count());
  return input;
}

LinearInput Linear::output_for(const Linear& next, const ops::ExecutionContext& context, const TensorView& buffer,
                               Shape shape, DType plain_dtype) const {
  if (quantized_ && next.quantized_ && quantized_->writes_codes_for(*next.quantized_, context.traits())) {
    return next.input_in(context, buffer, shape, plain_dtype);
  }
  return {.plain = TensorView(buffer.data(), plain_dtype, shape), .codes = {}, .quant_scale = {}};
}

void Linear::forward(ops::ExecutionContext& context, const LinearInput& x, const TensorView& out,
                     const LinearExtras& extras) const {
  forward(context, x, LinearInput{.plain = out, .codes = {}, .quant_scale = {}}, extras);
}

void Linear::forward(ops::ExecutionContext& context, const LinearInput& x, const LinearInput& out,
                     const LinearExtras& extras) const {
  if (!x.coded() && !out.coded()) {
    forward(context, x.plain, out.plain, extras);
    return;
  }
  OCTAVO_CHECK(quantized_.has_value(), "codes beside a product of plain activations");
  if (x.coded()) {
    quantized_->forward_codes(context, x.codes, epilogue_of(extras), out.out(), out.quant_scale);
  } else {
    quantized_->forward(context, x.plain, epilogue_of(extras), out.out(), out.quant_scale);
  }
}

void Linear::forward(ops::ExecutionContext& context, const TensorView& x, const TensorView& out,
                     const LinearExtras& extras) const {
  if (!input_tap_.empty()) context.tap(input_tap_, x);
  if (quantized_) {
    quantized_->forward(context, x, epilogue_of(extras), out);
    return;
  }
  ops::MatmulArgs args{.x = x, .weight = weight_, .epilogue = epilogue_of(extras), .out = out};
  if (streamed_.streamer != nullptr) {
    args.weight.plain = weight_.plain.moved_to(streamed_.streamer->acquire(context, streamed_.number));
  }
  ops::matmul(context, args);
}

}  // namespace octavo::layers
