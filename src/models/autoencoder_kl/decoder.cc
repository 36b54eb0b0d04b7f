#include "models/autoencoder_kl/decoder.h"

#include <algorithm>

#include "models/autoencoder_kl/banded_map.h"
#include "ops/sample/sample.h"

namespace octavo::models {

Result<AutoencoderDecoder> AutoencoderDecoder::load(device::Device& device, weights::CheckpointPart part,
                                                    DType activation_dtype) {
  AutoencoderDecoder model;
  OCTAVO_ASSIGN_OR_RETURN(model.config_, AutoencoderConfig::from_json(part.config, part.name + "/config.json"));
  model.label_ = part.name + ".decoder";
  model.dtype_ = activation_dtype;
  model.weights_ = std::make_shared<weights::WeightStore>(std::move(part.weights));
  const AutoencoderConfig& c = model.config_;
  layers::LoadContext load{device, *model.weights_, activation_dtype};
  for (const std::string& name : load.weights.names()) {
    if (name.starts_with("encoder.")) load.weights.ignore(name);
  }

  const std::int64_t deepest = c.channels.back();
  model.conv_in_ = layers::Convolution::load(load, "decoder.conv_in", c.latent_channels, deepest, 3);
  model.mid_ = AutoencoderMiddle::load(load, "decoder.mid_block.", deepest, c.groups);
  std::int64_t in = deepest;
  for (std::size_t i = 0; i < c.channels.size(); ++i) {
    const std::int64_t out = c.channels[c.channels.size() - 1 - i];
    const std::string at = "decoder.up_blocks." + std::to_string(i) + ".";
    UpBlock block;
    for (int j = 0; j <= c.layers_per_block; ++j) {
      block.residuals.push_back(
          AutoencoderResidual::load(load, at + "resnets." + std::to_string(j) + ".", in, out, c.groups));
      in = out;
    }
    if (i + 1 < c.channels.size()) {
      block.upsample = layers::Convolution::load(load, at + "upsamplers.0.conv", out, out, 3, true);
    }
    model.ups_.push_back(std::move(block));
  }
  model.norm_out_ = layers::GroupNorm::load(load, "decoder.conv_norm_out", c.channels.front(), c.groups);
  model.conv_out_ = layers::Convolution::load(load, "decoder.conv_out", c.channels.front(), 3, 3);
  OCTAVO_RETURN_IF_ERROR(load.weights.finish());
  OCTAVO_RETURN_IF_ERROR(load.status);
  return model;
}

void AutoencoderDecoder::decode(ops::ExecutionContext& context, const TensorView& latents,
                                const TensorView& out) const {
  if (out.dim(1) * out.dim(2) <= memory_.whole_pixels) {
    decode_whole(context, latents, out);
    return;
  }
  for (std::int64_t b = 0; b < latents.dim(0); ++b) {
    decode_in_bands(context, latents.slice(0, b, 1), out.slice(0, b, 1));
  }
}

void AutoencoderDecoder::begin(ops::ExecutionContext& context, const TensorView& latents, const TensorView& x) const {
  device::Arena::Scope scope(context.arena());
  const TensorView z = context.arena().take(dtype_, Shape{x.dim(0), x.dim(1), x.dim(2), config_.latent_channels});
  ops::latents_to_decoder(
      context,
      {.latents = latents, .scaling_factor = config_.scaling_factor, .shift_factor = config_.shift_factor, .out = z});
  conv_in_.forward(context, z, x);
  context.tap(label_ + ".conv_in", x);
}

void AutoencoderDecoder::decode_whole(ops::ExecutionContext& context, const TensorView& latents,
                                      const TensorView& out) const {
  const AutoencoderConfig& c = config_;
  const std::int64_t B = latents.dim(0), height = latents.dim(2), width = latents.dim(3);
  auto& arena = context.arena();
  device::Arena::Scope scope(arena);
  // The largest feature map of any level, input or output of its blocks.
  std::int64_t largest = 0, in = c.channels.back();
  for (std::size_t i = 0; i < c.channels.size(); ++i) {
    const std::int64_t channels = c.channels[c.channels.size() - 1 - i], pixels = (height << i) * (width << i);
    largest = std::max(largest, pixels * std::max(in, channels));
    in = channels;
  }
  TensorView spare = arena.take(dtype_, Shape{B * largest});
  const TensorView first = arena.take(dtype_, Shape{B * largest});
  const TensorView normed = arena.take(dtype_, Shape{B * largest});

  TensorView x = reshaped(first, Shape{B, height, width, c.channels.back()});
  begin(context, latents, x);
  mid_.forward(context, x, spare, normed);
  context.tap(label_ + ".mid_block", x);
  for (std::size_t i = 0; i < ups_.size(); ++i) {
    for (const AutoencoderResidual& block : ups_[i].residuals) block.forward(context, x, spare, normed);
    if (ups_[i].upsample) {
      const TensorView doubled =
          reshaped(spare, Shape{B, x.dim(1) * 2, x.dim(2) * 2, ups_[i].upsample->out_channels()});
      ups_[i].upsample->forward(context, x, doubled, {}, true);
      spare = TensorView(x.data(), x.dtype(), Shape{B * largest});
      x = doubled;
    }
    if (context.tapped()) context.tap(label_ + ".up_blocks." + std::to_string(i), x);
  }
  const TensorView last = reshaped(normed, x.shape());
  norm_out_.forward(context, x, last, true);
  conv_out_.forward(context, last, out);
  context.tap(label_ + ".conv_out", out);
}

void AutoencoderDecoder::decode_in_bands(ops::ExecutionContext& context, const TensorView& latents,
                                         const TensorView& out) const {
  const AutoencoderConfig& c = config_;
  const std::int64_t height = latents.dim(2), width = latents.dim(3);
  auto& arena = context.arena();
  device::Arena::Scope scope(arena);
  // The largest map that a level ends with.
  std::int64_t largest = 0;
  for (std::size_t i = 0; i < c.channels.size(); ++i) {
    largest = std::max(largest, (height << i) * (width << i) * c.channels[c.channels.size() - 1 - i]);
  }
  TensorView x = arena.take(dtype_, Shape{1, height, width, c.channels.back()});
  {
    // At the size of latents, where a whole map is small.
    device::Arena::Scope middle_scope(arena);
    TensorView spare = arena.take(dtype_, Shape{x.element_count()});
    const TensorView normed = arena.take(dtype_, Shape{x.element_count()});
    begin(context, latents, x);
    mid_.forward(context, x, spare, normed);
    context.tap(label_ + ".mid_block", x);
  }
  BandedMap map(context, dtype_, largest, memory_.band_elements);
  map.start(x);
  const layers::Convolution* folded = nullptr;  // an upsampling that the next block takes with it
  for (std::size_t i = 0; i < ups_.size(); ++i) {
    for (const AutoencoderResidual& block : ups_[i].residuals) {
      map.residual(block, folded);
      folded = nullptr;
    }
    const bool doubles = ups_[i].upsample.has_value();
    const std::int64_t doubled = 4 * map.view().element_count();
    // A doubled map that would be the largest of all is never held: the block after it narrows it.
    if (doubles && doubled > largest) folded = &*ups_[i].upsample;
    if (doubles && folded == nullptr) map.upsample(*ups_[i].upsample);
    if (context.tapped() && folded == nullptr) context.tap(label_ + ".up_blocks." + std::to_string(i), map.view());
  }
  map.finish(norm_out_, conv_out_, out);
  context.tap(label_ + ".conv_out", out);
}

}  // namespace octavo::models
