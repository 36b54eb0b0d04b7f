#include "models/autoencoder_kl/encoder.h"

#include <algorithm>

#include "models/autoencoder_kl/banded_map.h"
#include "ops/cast/cast.h"

namespace octavo::models {

bool AutoencoderEncoder::present(const weights::WeightStore& weights) {
  return weights.contains("encoder.conv_in.weight");
}

Result<AutoencoderEncoder> AutoencoderEncoder::load(device::Device& device, weights::CheckpointPart part,
                                                    DType activation_dtype) {
  AutoencoderEncoder model;
  OCTAVO_ASSIGN_OR_RETURN(model.config_, AutoencoderConfig::from_json(part.config, part.name + "/config.json"));
  model.label_ = part.name + ".encoder";
  model.dtype_ = activation_dtype;
  model.weights_ = std::make_shared<weights::WeightStore>(std::move(part.weights));
  const AutoencoderConfig& c = model.config_;
  layers::LoadContext load{device, *model.weights_, activation_dtype};
  for (const std::string& name : load.weights.names()) {
    if (name.starts_with("decoder.")) load.weights.ignore(name);
  }

  std::int64_t in = c.channels.front();
  model.conv_in_ = layers::Convolution::load(load, "encoder.conv_in", 3, in, 3);
  for (std::size_t i = 0; i < c.channels.size(); ++i) {
    const std::int64_t out = c.channels[i];
    const std::string at = "encoder.down_blocks." + std::to_string(i) + ".";
    DownBlock block;
    for (int j = 0; j < c.layers_per_block; ++j) {
      const std::string residual = at + "resnets." + std::to_string(j) + ".";
      block.residuals.push_back(AutoencoderResidual::load(load, residual, in, out, c.groups));
      in = out;
    }
    if (i + 1 < c.channels.size()) {
      block.downsample = layers::Convolution::load(load, at + "downsamplers.0.conv", out, out, 3);
    }
    model.downs_.push_back(std::move(block));
  }
  model.mid_ = AutoencoderMiddle::load(load, "encoder.mid_block.", in, c.groups);
  model.norm_out_ = layers::GroupNorm::load(load, "encoder.conv_norm_out", in, c.groups);
  model.conv_out_ = layers::Convolution::load(load, "encoder.conv_out", in, 2 * c.latent_channels, 3);
  OCTAVO_RETURN_IF_ERROR(load.weights.finish());
  OCTAVO_RETURN_IF_ERROR(load.status);
  return model;
}

void AutoencoderEncoder::encode(ops::ExecutionContext& context, const TensorView& picture,
                                const TensorView& moments) const {
  const std::int64_t height = picture.dim(1), width = picture.dim(2), downscale = config_.downscale();
  OCTAVO_CHECK(height % downscale == 0 && width % downscale == 0, "a picture of {}x{} is not a multiple of {}", width,
               height, downscale);
  if (height * width <= memory_.whole_pixels) {
    encode_whole(context, picture, moments);
    return;
  }
  for (std::int64_t b = 0; b < picture.dim(0); ++b) {
    encode_in_bands(context, picture.slice(0, b, 1), moments.slice(0, b, 1));
  }
}

void AutoencoderEncoder::encode_whole(ops::ExecutionContext& context, const TensorView& picture,
                                      const TensorView& moments) const {
  const AutoencoderConfig& c = config_;
  const std::int64_t B = picture.dim(0), height = picture.dim(1), width = picture.dim(2);
  auto& arena = context.arena();
  device::Arena::Scope scope(arena);
  // The largest feature map of any level, input or output of its blocks.
  std::int64_t largest = 0, in = c.channels.front();
  for (std::size_t i = 0; i < c.channels.size(); ++i) {
    largest = std::max(largest, (height >> i) * (width >> i) * std::max(in, c.channels[i]));
    in = c.channels[i];
  }
  TensorView spare = arena.take(dtype_, Shape{B * largest});
  const TensorView first = arena.take(dtype_, Shape{B * largest});
  const TensorView normed = arena.take(dtype_, Shape{B * largest});

  TensorView x = reshaped(first, Shape{B, height, width, c.channels.front()});
  {
    device::Arena::Scope input_scope(arena);
    const TensorView pixels = arena.take(dtype_, picture.shape());
    ops::cast(context, {.x = picture, .out = pixels});
    conv_in_.forward(context, pixels, x);
  }
  context.tap(label_ + ".conv_in", x);
  for (std::size_t i = 0; i < downs_.size(); ++i) {
    for (const AutoencoderResidual& block : downs_[i].residuals) block.forward(context, x, spare, normed);
    if (downs_[i].downsample) {
      const TensorView halved = reshaped(spare, Shape{B, x.dim(1) / 2, x.dim(2) / 2, x.dim(3)});
      downs_[i].downsample->downsample(context, x, halved);
      spare = TensorView(x.data(), x.dtype(), Shape{B * largest});
      x = halved;
    }
    if (context.tapped()) context.tap(label_ + ".down_blocks." + std::to_string(i), x);
  }
  finish(context, x, spare, normed, moments);
}

void AutoencoderEncoder::finish(ops::ExecutionContext& context, TensorView x, TensorView spare,
                                const TensorView& normed, const TensorView& moments) const {
  mid_.forward(context, x, spare, normed);
  context.tap(label_ + ".mid_block", x);
  const TensorView last = reshaped(normed, x.shape());
  norm_out_.forward(context, x, last, true);
  conv_out_.forward(context, last, moments);
  context.tap(label_ + ".conv_out", moments);
}

void AutoencoderEncoder::encode_in_bands(ops::ExecutionContext& context, const TensorView& picture,
                                         const TensorView& moments) const {
  const AutoencoderConfig& c = config_;
  const std::int64_t height = picture.dim(1), width = picture.dim(2);
  auto& arena = context.arena();
  device::Arena::Scope scope(arena);
  // The largest map that a level begins or ends with.
  std::int64_t largest = height * width * c.channels.front();
  for (std::size_t i = 0; i < c.channels.size(); ++i) {
    largest = std::max(largest, (height >> i) * (width >> i) * c.channels[i]);
  }
  const std::int64_t downscale = c.downscale();
  const TensorView x = arena.take(dtype_, Shape{1, height / downscale, width / downscale, c.channels.back()});
  {
    device::Arena::Scope map_scope(arena);
    BandedMap map(context, dtype_, largest, memory_.band_elements);
    map.start(picture, conv_in_);
    context.tap(label_ + ".conv_in", map.view());
    for (std::size_t i = 0; i < downs_.size(); ++i) {
      for (const AutoencoderResidual& block : downs_[i].residuals) map.residual(block);
      if (downs_[i].downsample) map.downsample(*downs_[i].downsample);
      if (context.tapped()) context.tap(label_ + ".down_blocks." + std::to_string(i), map.view());
    }
    ops::cast(context, {.x = map.view(), .out = x});
  }
  const TensorView spare = arena.take(dtype_, Shape{x.element_count()});
  const TensorView normed = arena.take(dtype_, Shape{x.element_count()});
  finish(context, x, spare, normed, moments);
}

}  // namespace octavo::models
