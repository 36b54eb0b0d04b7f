#include "models/autoencoder_kl/blocks.h"

#include <array>
#include <cmath>

#include "ops/attention/attention.h"
#include "ops/cast/cast.h"
#include "ops/norm/norm.h"

namespace octavo::models {

TensorView reshaped(const TensorView& buffer, Shape shape) {
  OCTAVO_CHECK(shape.element_count() <= buffer.element_count(), "{} does not fit into {} elements", shape.to_string(),
               buffer.element_count());
  return TensorView(buffer.data(), buffer.dtype(), shape);
}

AutoencoderResidual AutoencoderResidual::load(layers::LoadContext& load, const std::string& at, std::int64_t in,
                                              std::int64_t out, int groups) {
  AutoencoderResidual block;
  block.norm1 = layers::GroupNorm::load(load, at + "norm1", in, groups);
  block.conv1 = layers::Convolution::load(load, at + "conv1", in, out, 3);
  block.norm2 = layers::GroupNorm::load(load, at + "norm2", out, groups);
  block.conv2 = layers::Convolution::load(load, at + "conv2", out, out, 3);
  if (in != out) block.shortcut = layers::Convolution::load(load, at + "conv_shortcut", in, out, 1);
  block.in_channels = in;
  block.out_channels = out;
  return block;
}

void AutoencoderResidual::forward(ops::ExecutionContext& context, TensorView& x, TensorView& spare,
                                  const TensorView& normed_buffer) const {
  const std::int64_t B = x.dim(0), height = x.dim(1), width = x.dim(2);
  device::Arena::Scope scope(context.arena());
  const TensorView normed = reshaped(normed_buffer, x.shape());
  norm1.forward(context, x, normed, true);
  const TensorView hidden = context.arena().take(x.dtype(), Shape{B, height, width, out_channels});
  conv1.forward(context, normed, hidden);
  const TensorView hidden_normed = reshaped(normed_buffer, hidden.shape());
  norm2.forward(context, hidden, hidden_normed, true);
  if (shortcut) {
    const TensorView moved = reshaped(spare, hidden.shape());
    shortcut->forward(context, x, moved);
    conv2.forward(context, hidden_normed, moved, moved);
    const TensorView old(x.data(), x.dtype(), Shape{spare.element_count()});
    x = moved;
    spare = old;
  } else {
    conv2.forward(context, hidden_normed, x, x);
  }
}

AutoencoderMiddle AutoencoderMiddle::load(layers::LoadContext& load, const std::string& at, std::int64_t channels,
                                          int groups) {
  AutoencoderMiddle middle;
  middle.channels = channels;
  middle.before = AutoencoderResidual::load(load, at + "resnets.0.", channels, channels, groups);
  middle.after = AutoencoderResidual::load(load, at + "resnets.1.", channels, channels, groups);
  const std::string attention = at + "attentions.0.";
  middle.norm = layers::GroupNorm::load(load, attention + "group_norm", channels, groups);
  const std::array<std::string, 3> names = {attention + "to_q", attention + "to_k", attention + "to_v"};
  middle.qkv = layers::Linear::load_joined(load, names, channels, channels, true);
  middle.out = layers::Linear::load(load, attention + "to_out.0", channels, channels, true);
  return middle;
}

void AutoencoderMiddle::forward(ops::ExecutionContext& context, TensorView& x, TensorView& spare,
                                const TensorView& normed) const {
  before.forward(context, x, spare, normed);
  attend(context, x, normed);
  after.forward(context, x, spare, normed);
}

void AutoencoderMiddle::attend(ops::ExecutionContext& context, const TensorView& x,
                               const TensorView& normed_buffer) const {
  const std::int64_t B = x.dim(0), tokens = x.dim(1) * x.dim(2), C = channels;
  auto& arena = context.arena();
  device::Arena::Scope scope(arena);
  const TensorView normed = reshaped(normed_buffer, x.shape());
  norm.forward(context, x, normed, false);
  const TensorView joined = arena.take(x.dtype(), Shape{B, tokens, 3 * C});
  qkv.forward(context, normed.reshape(Shape{B, tokens, C}), joined);
  const TensorView q = arena.take(x.dtype(), Shape{B, 1, tokens, C});
  const TensorView k = arena.take(x.dtype(), Shape{B, 1, tokens, C});
  const TensorView v = arena.take(x.dtype(), Shape{B, 1, tokens, C});
  ops::qkv_split_norm(context, {.qkv = joined, .q = q, .k = k, .v = v});
  const TensorView attended = arena.take(x.dtype(), Shape{B, tokens, C});
  ops::attention(context,
                 {.q = q, .k = k, .v = v, .score_factor = 1.0f / std::sqrt(static_cast<float>(C)), .out = attended});
  // The residual of a product is f32; the feature map may be bf16, so it passes through an f32 sum.
  const TensorView sum = arena.take(DType::kF32, Shape{B, tokens, C});
  ops::cast(context, {.x = x.reshape(Shape{B, tokens, C}), .out = sum});
  out.forward(context, attended, sum, {.residual = sum});
  ops::cast(context, {.x = sum, .out = x.reshape(Shape{B, tokens, C})});
}

}  // namespace octavo::models
