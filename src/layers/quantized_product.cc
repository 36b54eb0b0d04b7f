#include "layers/quantized_product.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "layers/weight_streamer.h"
#include "ops/quantize/quantize.h"

namespace octavo::layers {
namespace {

using weights::ActivationForm;
using weights::QuantizedWeight;

ScaleGrain grain_of(ActivationForm form) {
  switch (form) {
    case ActivationForm::kStatic:
      return ScaleGrain::kTensor;
    case ActivationForm::kBlock:
      return ScaleGrain::kBlock128;
    case ActivationForm::kToken:
    case ActivationForm::kNone:
      break;
  }
  return ScaleGrain::kRow;
}

ActivationForm input_of(const LoadContext& load, const QuantizedWeight& codes) {
  return load.precision.weights == WeightPrecision::kWeightsQuantized ? ActivationForm::kNone : codes.activations;
}

bool same_elements(const TensorView& a, const TensorView& b) {
  if (a.defined() != b.defined()) return false;
  return !a.defined() || (a.shape() == b.shape() && std::memcmp(a.data(), b.data(), a.byte_count()) == 0);
}

/// What keeps layers from being one product; empty when nothing does.
std::string_view difference(const QuantizedWeight& a, const QuantizedWeight& b) {
  if (a.weight.codes.dtype() != b.weight.codes.dtype()) return "formats of their weights";
  if ((a.weight.grain == ScaleGrain::kBlock128) != (b.weight.grain == ScaleGrain::kBlock128)) {
    return "grains of their scales";
  }
  if (a.activations != b.activations || !same_elements(a.input_scale, b.input_scale)) return "scales of their input";
  if (!same_elements(a.input_multiplier, b.input_multiplier)) return "multipliers of their input";
  return same_elements(a.outlier_index, b.outlier_index) ? "" : "split channels of their input";
}

/// The layers' scales in the order of their rows.
std::vector<float> joined_scales(std::span<const QuantizedWeight> codes, ScaleGrain grain) {
  std::vector<float> scales;
  for (const QuantizedWeight& one : codes) {
    const float* from = one.weight.dequant_scale.f32();
    const std::int64_t count = one.weight.dequant_scale.element_count();
    if (grain == ScaleGrain::kRow && one.weight.grain == ScaleGrain::kTensor) {
      scales.insert(scales.end(), static_cast<std::size_t>(one.weight.rows()), *from);
    } else {
      scales.insert(scales.end(), from, from + count);
    }
  }
  return scales;
}

}  // namespace

bool QuantizedProduct::takes(const LoadContext& load, const QuantizedWeight& codes) {
  return input_of(load, codes) != ActivationForm::kNone ||
         (!codes.input_multiplier.defined() && !codes.outlier_index.defined());
}

std::optional<QuantizedProduct> QuantizedProduct::from_codes(LoadContext& load, std::span<const std::string> layers,
                                                             std::span<const QuantizedWeight> codes) {
  const QuantizedWeight& first = codes.front();
  std::int64_t rows = 0;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const std::string_view what = difference(first, codes[i]);
    if (!what.empty()) {
      load.note(data_corruption(load.weights.label(), fmt::format("{} and {} read one input, and the {} differ",
                                                                  layers.front(), layers[i], what)));
      return std::nullopt;
    }
    rows += codes[i].weight.rows();
  }
  QuantizedProduct product;
  product.input_ = input_of(load, first);
  product.input_format_ = first.activation_format;
  QuantizedView joined = first.weight;
  const bool on_host = load.device.traits().kind == device::DeviceKind::kCpu;
  if (codes.size() > 1 || !on_host) {
    const std::int64_t inner = first.weight.inner();
    auto buffer = load.device.allocate(static_cast<std::size_t>(rows * inner));
    if (!buffer.ok()) {
      load.note(buffer.status());
      return std::nullopt;
    }
    product.codes_ = std::move(*buffer);
    const auto stream = load.device.create_stream();
    auto* at = static_cast<std::byte*>(product.codes_.data());
    std::vector<std::byte> columns;  // of all layers' outlier weights
    for (const QuantizedWeight& one : codes) {
      load.device.copy_to_device(*stream, at, one.weight.codes.data(), one.weight.codes.byte_count());
      at += one.weight.codes.byte_count();
      if (!one.outlier_weight.defined()) continue;
      const auto* from = static_cast<const std::byte*>(one.outlier_weight.data());
      columns.insert(columns.end(), from, from + one.outlier_weight.byte_count());
    }
    stream->synchronize();
    joined.codes = TensorView(product.codes_.data(), first.weight.codes.dtype(), Shape{rows, inner});
    joined.grain = first.weight.grain == ScaleGrain::kBlock128 ? ScaleGrain::kBlock128 : ScaleGrain::kRow;
    const std::vector<float> scales = joined_scales(codes, joined.grain);
    product.scales_ =
        copy_to_device(load, TensorView(scales.data(), DType::kF32, scale_shape(joined.grain, rows, inner)));
    if (!columns.empty()) {
      product.outlier_weight_ =
          copy_to_device(load, TensorView(columns.data(), DType::kBF16, Shape{rows, first.outlier_weight.dim(1)}));
    }
  } else {
    product.scales_ = copy_to_device(load, first.weight.dequant_scale);
    if (first.outlier_weight.defined()) product.outlier_weight_ = copy_to_device(load, first.outlier_weight);
  }
  if (first.input_scale.defined()) product.set_input_scale(load, *first.input_scale.f32());
  if (first.input_multiplier.defined()) product.multiplier_ = copy_to_device(load, first.input_multiplier);
  if (first.outlier_index.defined()) product.outliers_ = copy_to_device(load, first.outlier_index);
  joined.dequant_scale = product.scales_.view;
  if (!load.status.ok() || !product.pack(load, joined, codes.size() == 1 && first.weight.grain == ScaleGrain::kTensor))
    return std::nullopt;
  return product;
}

std::optional<QuantizedProduct> QuantizedProduct::quantize(LoadContext& load, std::span<const std::string> layers,
                                                           const TensorView& plain) {
  const auto started = std::chrono::steady_clock::now();
  QuantizedProduct product;
  const bool stored = load.at_load == AtLoad::kStorage;
  const bool weights_alone = stored || load.at_load == AtLoad::kWeights;
  if (weights_alone || load.precision.weights == WeightPrecision::kWeightsQuantized)
    product.input_ = ActivationForm::kNone;
  const std::int64_t rows = plain.dim(0);
  auto codes = load.device.allocate(static_cast<std::size_t>(plain.element_count()));
  auto scales = load.device.allocate(static_cast<std::size_t>(rows) * sizeof(float));
  for (const auto* buffer : {&codes, &scales}) {
    if (buffer->ok()) continue;
    load.note(buffer->status());
    return std::nullopt;
  }
  product.codes_ = std::move(*codes);
  product.scales_.buffer = std::move(*scales);
  product.scales_.view = TensorView(product.scales_.buffer.data(), DType::kF32, Shape{rows});
  QuantizedView quantized{TensorView(product.codes_.data(), stored ? DType::kI8 : DType::kE4M3, plain.shape()),
                          product.scales_.view, ScaleGrain::kRow};
  const auto stream = load.device.create_stream();
  device::Arena arena;
  ops::ExecutionContext context(load.device, *stream, arena);
  ops::quantize(context, {.x = plain, .multiplier = {}, .outliers = {}, .out = quantized, .outlier_values = {}});
  std::vector<float> found(static_cast<std::size_t>(rows));
  load.device.copy_to_host(*stream, found.data(), product.scales_.view.data(), found.size() * sizeof(float));
  stream->synchronize();
  const auto bad = std::ranges::find_if(found, [](float scale) { return !std::isfinite(scale); });
  if (bad != found.end()) {
    const std::int64_t row = bad - found.begin(), each = rows / static_cast<std::int64_t>(layers.size());
    load.note(data_corruption(load.weights.label(),
                              fmt::format("tensor {}.weight holds NaN or infinity in row {}: it cannot be quantised",
                                          layers[static_cast<std::size_t>(row / each)], row % each)));
    return std::nullopt;
  }
  if (product.quantizes_input() && load.precision.static_amax > 0) {
    const float scale = *std::ranges::max_element(found);
    product.scales_ = copy_to_device(load, TensorView(static_cast<const void*>(&scale), DType::kF32, Shape{1}));
    product.input_ = ActivationForm::kStatic;
    product.set_input_scale(load, dequant_scale_of(load.precision.static_amax, product.input_format_));
    if (!load.status.ok()) return std::nullopt;
    quantized.dequant_scale = product.scales_.view;
    quantized.grain = ScaleGrain::kTensor;
    ops::quantize(context, {.x = plain, .multiplier = {}, .outliers = {}, .out = quantized, .outlier_values = {}});
    stream->synchronize();
  }
  load.forms.quantizing += std::chrono::steady_clock::now() - started;
  if (!product.pack(load, quantized, quantized.grain == ScaleGrain::kTensor)) return std::nullopt;
  return product;
}

void QuantizedProduct::set_input_scale(LoadContext& load, float dequant_scale) {
  const float quant_scale = 1.0f / dequant_scale;  // rounded once, as tensor/quantized.h has it
  const auto scalar = [](const float& value) {
    return TensorView(static_cast<const void*>(&value), DType::kF32, Shape{1});
  };
  input_scale_ = copy_to_device(load, scalar(dequant_scale));
  input_quant_scale_ = copy_to_device(load, scalar(quant_scale));
}

bool QuantizedProduct::pack(LoadContext& load, const QuantizedView& quantized, bool one_scale) {
  ops::ScaledActivations activations{load.precision.activations, {}};
  if (quantizes_input()) activations = {input_format_, grain_of(input_)};
  if (input_ == ActivationForm::kStatic) activations.static_scale = input_scale_.view;
  auto packed = ops::pack_scaled_weight(load.device, quantized, outlier_weight_.view, activations);
  if (!packed.ok()) {
    load.note(packed.status());
    return false;
  }
  weight_ = std::move(*packed);
  weight_.one_scale = one_scale;
  if (weight_.quantized.codes.data() != codes_.data()) codes_ = {};  // the file's, or the backend made its own
  if (load.streamer != nullptr) {
    streamed_ = stream_weight(load, weight_.quantized.codes);
    // The packed form may own the scales too: they stay, and so do the layer's own.
    weight_.quantized.dequant_scale = scales_.view;
    weight_.quantized.grain = quantized.grain;
    weight_.outlier_weight = outlier_weight_.view;
    weight_.packed.reset();
    codes_ = {};
  }
  return true;
}

ops::ScaledWeight QuantizedProduct::weight_at(ops::ExecutionContext& context) const {
  ops::ScaledWeight weight = weight_;
  if (streamed_.streamer != nullptr) {
    weight.quantized.codes = weight_.quantized.codes.moved_to(streamed_.streamer->acquire(context, streamed_.number));
  }
  return weight;
}

bool QuantizedProduct::takes_fused_codes(const device::DeviceTraits& traits) const {
  return traits.fuses_quantisation && (input_ == ActivationForm::kToken || input_ == ActivationForm::kStatic) &&
         input_format_ != DType::kE5M2 && !multiplier_.view.defined() && !outliers_.view.defined();
}

bool QuantizedProduct::writes_codes_for(const QuantizedProduct& next, const device::DeviceTraits& traits) const {
  constexpr int kFirstWithFloat8 = 89;
  const auto is_static = [](const QuantizedProduct& one) {
    return one.input_ == ActivationForm::kStatic && one.input_format_ == DType::kE4M3;
  };
  return traits.compute_capability >= kFirstWithFloat8 && next.takes_fused_codes(traits) && is_static(next) &&
         is_static(*this) && weight_.one_scale && weight_.quantized.codes.dtype() == DType::kE4M3 &&
         !outliers_.view.defined();
}

void QuantizedProduct::forward_codes(ops::ExecutionContext& context, const QuantizedView& x,
                                     const ops::Epilogue& epilogue, const TensorView& out,
                                     const TensorView& out_quant_scale) const {
  ops::scaled_matmul(context, {.x = x,
                               .weight = weight_at(context),
                               .outliers = {},
                               .epilogue = epilogue,
                               .out = out,
                               .out_quant_scale = out_quant_scale});
}

void QuantizedProduct::forward(ops::ExecutionContext& context, const TensorView& x, const ops::Epilogue& epilogue,
                               const TensorView& out, const TensorView& out_quant_scale) const {
  ops::ScaledMatmulArgs args;
  args.weight = weight_at(context);
  args.epilogue = epilogue;
  args.out = out;
  args.out_quant_scale = out_quant_scale;
  device::Arena& arena = context.arena();
  const device::Arena::Scope scope(arena);
  if (!quantizes_input()) {
    args.x.codes = x;
  } else {
    args.x.codes = arena.take(input_format_, x.shape());
    args.x.grain = grain_of(input_);
    args.x.dequant_scale = input_ == ActivationForm::kStatic
                               ? input_scale_.view
                               : arena.take(DType::kF32, scale_shape(args.x.grain, args.x.rows(), args.x.inner()));
    if (outliers_.view.defined()) {
      const std::int64_t count = outliers_.view.dim(0);
      args.outliers =
          arena.take(DType::kBF16, x.rank() == 3 ? Shape{x.dim(0), x.dim(1), count} : Shape{x.dim(0), count});
    }
    ops::quantize(context, {.x = x,
                            .multiplier = multiplier_.view,
                            .outliers = outliers_.view,
                            .out = args.x,
                            .outlier_values = args.outliers});
  }
  ops::scaled_matmul(context, args);
}

}  // namespace octavo::layers
