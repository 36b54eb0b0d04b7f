#include "models/autoencoder_kl/decoder.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "ops/attention/attention.h"
#include "ops/cast/cast.h"
#include "ops/norm/norm.h"
#include "ops/sample/sample.h"

namespace octavo::models {

Result<AutoencoderConfig> AutoencoderConfig::from_json(const boost::json::object& config, const std::string& file) {
  using weights::config_int;
  AutoencoderConfig result;
  const auto* channels = config.if_contains("block_out_channels");
  if (channels == nullptr || !channels->is_array() || channels->get_array().empty() ||
      channels->get_array().size() > 8) {
    return data_corruption(file, "block_out_channels is not a list of 1 to 8 integers");
  }
  OCTAVO_ASSIGN_OR_RETURN(const auto groups, config_int(config, "norm_num_groups", file));
  OCTAVO_ASSIGN_OR_RETURN(const auto layer_count, config_int(config, "layers_per_block", file));
  OCTAVO_ASSIGN_OR_RETURN(result.latent_channels, config_int(config, "latent_channels", file));
  OCTAVO_ASSIGN_OR_RETURN(const double scaling, weights::config_number(config, "scaling_factor", file));
  constexpr std::int64_t kMost = 1 << 16;
  for (const auto& value : channels->get_array()) {
    if (!value.is_int64() || value.get_int64() < 1 || value.get_int64() > kMost || groups < 1 ||
        value.get_int64() % groups != 0) {
      return data_corruption(file, fmt::format("block_out_channels must be multiples of norm_num_groups ({})", groups));
    }
    result.channels.push_back(value.get_int64());
  }
  if (layer_count < 1 || layer_count > 64 || result.latent_channels < 1 || result.latent_channels > kMost ||
      !(scaling > 0)) {
    return invalid_argument(file, fmt::format("{} layers per block, {} latent channels, scaling {} are not possible",
                                              layer_count, result.latent_channels, scaling));
  }
  result.groups = static_cast<int>(groups);
  result.layers_per_block = static_cast<int>(layer_count);
  result.scaling_factor = static_cast<float>(scaling);
  result.shift_factor = 0.0f;
  if (const auto* shift = config.if_contains("shift_factor"); shift != nullptr && !shift->is_null()) {
    OCTAVO_ASSIGN_OR_RETURN(const double value, weights::config_number(config, "shift_factor", file));
    result.shift_factor = static_cast<float>(value);
  }
  for (const char* quant : {"use_quant_conv", "use_post_quant_conv"}) {
    const auto* value = config.if_contains(quant);
    if (value == nullptr || !value->is_bool() || value->get_bool()) {
      return invalid_argument(file, std::string(quant) + " must be false (Stable Diffusion 3 autoencoders have none)");
    }
  }
  return result;
}

AutoencoderDecoder::ResidualBlock AutoencoderDecoder::load_residual(layers::LoadContext& load, const std::string& at,
                                                                    std::int64_t in, std::int64_t out, int groups) {
  ResidualBlock block;
  block.norm1 = layers::GroupNorm::load(load, at + "norm1", in, groups);
  block.conv1 = layers::Convolution::load(load, at + "conv1", in, out, 3);
  block.norm2 = layers::GroupNorm::load(load, at + "norm2", out, groups);
  block.conv2 = layers::Convolution::load(load, at + "conv2", out, out, 3);
  if (in != out) block.shortcut = layers::Convolution::load(load, at + "conv_shortcut", in, out, 1);
  block.out_channels = out;
  return block;
}

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
  for (int i = 0; i < 2; ++i) {
    const std::string at = "decoder.mid_block.resnets." + std::to_string(i) + ".";
    model.mid_.push_back(load_residual(load, at, deepest, deepest, c.groups));
  }
  const std::string attention = "decoder.mid_block.attentions.0.";
  model.attention_.channels = deepest;
  model.attention_.norm = layers::GroupNorm::load(load, attention + "group_norm", deepest, c.groups);
  const std::array<std::string, 3> qkv = {attention + "to_q", attention + "to_k", attention + "to_v"};
  model.attention_.qkv = layers::Linear::load_joined(load, qkv, deepest, deepest, true);
  model.attention_.out = layers::Linear::load(load, attention + "to_out.0", deepest, deepest, true);
  std::int64_t in = deepest;
  for (std::size_t i = 0; i < c.channels.size(); ++i) {
    const std::int64_t out = c.channels[c.channels.size() - 1 - i];
    const std::string at = "decoder.up_blocks." + std::to_string(i) + ".";
    UpBlock block;
    for (int j = 0; j <= c.layers_per_block; ++j) {
      block.residuals.push_back(load_residual(load, at + "resnets." + std::to_string(j) + ".", in, out, c.groups));
      in = out;
    }
    if (i + 1 < c.channels.size()) {
      block.upsample = layers::Convolution::load(load, at + "upsamplers.0.conv", out, out, 3);
    }
    model.ups_.push_back(std::move(block));
  }
  model.norm_out_ = layers::GroupNorm::load(load, "decoder.conv_norm_out", c.channels.front(), c.groups);
  model.conv_out_ = layers::Convolution::load(load, "decoder.conv_out", c.channels.front(), 3, 3);
  OCTAVO_RETURN_IF_ERROR(load.weights.finish());
  OCTAVO_RETURN_IF_ERROR(load.status);
  return model;
}

namespace {

/// The same memory with another channel count or size; `buffer` is a flat view that is large enough.
TensorView shaped(const TensorView& buffer, Shape shape) {
  OCTAVO_CHECK(shape.element_count() <= buffer.element_count(), "{} does not fit into {} elements", shape.to_string(),
               buffer.element_count());
  return TensorView(buffer.data(), buffer.dtype(), shape);
}

}  // namespace

void AutoencoderDecoder::run_residual(ops::ExecutionContext& context, const ResidualBlock& block, TensorView& x,
                                      TensorView& spare, const TensorView& normed_buffer) const {
  const std::int64_t B = x.dim(0), height = x.dim(1), width = x.dim(2), out = block.out_channels;
  device::Arena::Scope scope(context.arena());
  const TensorView normed = shaped(normed_buffer, x.shape());
  block.norm1.forward(context, x, normed, true);
  const TensorView hidden = context.arena().take(dtype_, Shape{B, height, width, out});
  block.conv1.forward(context, normed, hidden);
  const TensorView hidden_normed = shaped(normed_buffer, hidden.shape());
  block.norm2.forward(context, hidden, hidden_normed, true);
  if (block.shortcut) {
    const TensorView moved = shaped(spare, hidden.shape());
    block.shortcut->forward(context, x, moved);
    block.conv2.forward(context, hidden_normed, moved, moved);
    const TensorView old(x.data(), x.dtype(), Shape{spare.element_count()});
    x = moved;
    spare = old;
  } else {
    block.conv2.forward(context, hidden_normed, x, x);
  }
}

void AutoencoderDecoder::run_attention(ops::ExecutionContext& context, const TensorView& x,
                                       const TensorView& normed_buffer) const {
  const std::int64_t B = x.dim(0), tokens = x.dim(1) * x.dim(2), C = attention_.channels;
  auto& arena = context.arena();
  device::Arena::Scope scope(arena);
  const TensorView normed = shaped(normed_buffer, x.shape());
  attention_.norm.forward(context, x, normed, false);
  const TensorView qkv = arena.take(dtype_, Shape{B, tokens, 3 * C});
  attention_.qkv.forward(context, normed.reshape(Shape{B, tokens, C}), qkv);
  const TensorView q = arena.take(dtype_, Shape{B, 1, tokens, C});
  const TensorView k = arena.take(dtype_, Shape{B, 1, tokens, C});
  const TensorView v = arena.take(dtype_, Shape{B, 1, tokens, C});
  ops::qkv_split_norm(context, {.qkv = qkv, .q = q, .k = k, .v = v});
  const TensorView attended = arena.take(dtype_, Shape{B, tokens, C});
  ops::attention(context, {.q = q, .k = k, .v = v, .score_factor = 1.0f / std::sqrt(static_cast<float>(C)),
                           .out = attended});
  // The residual of a product is f32; the feature map may be bf16, so it passes through an f32 sum.
  const TensorView sum = arena.take(DType::kF32, Shape{B, tokens, C});
  ops::cast(context, {.x = x.reshape(Shape{B, tokens, C}), .out = sum});
  attention_.out.forward(context, attended, sum, {.residual = sum});
  ops::cast(context, {.x = sum, .out = x.reshape(Shape{B, tokens, C})});
}

void AutoencoderDecoder::decode(ops::ExecutionContext& context, const TensorView& latents,
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

  TensorView x = shaped(first, Shape{B, height, width, c.channels.back()});
  {
    device::Arena::Scope input_scope(arena);
    const TensorView z = arena.take(dtype_, Shape{B, height, width, c.latent_channels});
    ops::latents_to_decoder(context, {.latents = latents, .scaling_factor = c.scaling_factor,
                                      .shift_factor = c.shift_factor, .out = z});
    conv_in_.forward(context, z, x);
  }
  context.tap(label_ + ".conv_in", x);
  run_residual(context, mid_[0], x, spare, normed);
  run_attention(context, x, normed);
  run_residual(context, mid_[1], x, spare, normed);
  context.tap(label_ + ".mid_block", x);
  for (std::size_t i = 0; i < ups_.size(); ++i) {
    for (const ResidualBlock& block : ups_[i].residuals) run_residual(context, block, x, spare, normed);
    if (ups_[i].upsample) {
      const TensorView doubled =
          shaped(spare, Shape{B, x.dim(1) * 2, x.dim(2) * 2, ups_[i].upsample->out_channels()});
      ups_[i].upsample->forward(context, x, doubled, {}, true);
      spare = TensorView(x.data(), x.dtype(), Shape{B * largest});
      x = doubled;
    }
    if (context.tapped()) context.tap(label_ + ".up_blocks." + std::to_string(i), x);
  }
  const TensorView last = shaped(normed, x.shape());
  norm_out_.forward(context, x, last, true);
  conv_out_.forward(context, last, out);
  context.tap(label_ + ".conv_out", out);
}

}  // namespace octavo::models
