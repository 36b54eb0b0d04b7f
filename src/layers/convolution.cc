#include "layers/convolution.h"

#include "ops/group_norm/group_norm_bands.h"

namespace octavo::layers {

Convolution Convolution::load(LoadContext& load, const std::string& prefix, std::int64_t in_channels,
                              std::int64_t out_channels, int kernel, bool upsamples) {
  Convolution layer;
  layer.out_channels_ = out_channels;
  layer.kernel_ = kernel;
  const TensorView plain = load.weights.require(prefix + ".weight", Shape{out_channels, in_channels, kernel, kernel});
  layer.bias_ = load_bias(load, prefix + ".bias", Shape{out_channels});
  if (plain.defined()) {
    auto packed = ops::pack_conv_weight(load.device, plain, load.precision.activations, upsamples);
    if (packed.ok()) {
      layer.weight_ = std::move(*packed);
    } else {
      load.note(packed.status());
    }
  }
  return layer;
}

void Convolution::forward(ops::ExecutionContext& context, const TensorView& x, const TensorView& out,
                          const TensorView& residual, bool upsample, Halo halo) const {
  ops::Conv2dArgs args;
  args.x = x;
  args.weight = weight_;
  args.bias = bias_.view;
  args.residual = residual;
  args.pad_before = args.pad_after = kernel_ / 2;
  args.upsample = upsample;
  args.halo_above = halo.above;
  args.halo_below = halo.below;
  args.out = out;
  ops::conv2d(context, args);
}

void Convolution::downsample(ops::ExecutionContext& context, const TensorView& x, const TensorView& out,
                             Halo halo) const {
  ops::Conv2dArgs args;
  args.x = x;
  args.weight = weight_;
  args.bias = bias_.view;
  args.stride = 2;
  args.pad_before = 0;
  args.pad_after = 1;
  args.halo_above = halo.above;
  args.halo_below = halo.below;
  args.out = out;
  ops::conv2d(context, args);
}

GroupNorm GroupNorm::load(LoadContext& load, const std::string& prefix, std::int64_t channels, int groups) {
  GroupNorm layer;
  layer.groups_ = groups;
  layer.weight_ = load_f32(load, prefix + ".weight", Shape{channels});
  layer.bias_ = load_f32(load, prefix + ".bias", Shape{channels});
  return layer;
}

void GroupNorm::forward(ops::ExecutionContext& context, const TensorView& x, const TensorView& out, bool silu) const {
  ops::GroupNormArgs args;
  args.x = x;
  args.weight = weight_.view;
  args.bias = bias_.view;
  args.groups = groups_;
  args.silu = silu;
  args.out = out;
  ops::group_norm(context, args);
}

void GroupNorm::measure(ops::ExecutionContext& context, const TensorView& band, std::int64_t first_pixel,
                        const TensorView& statistics) const {
  ops::group_norm_measure(context, {.x = band, .first_pixel = first_pixel, .statistics = statistics});
}

void GroupNorm::join(ops::ExecutionContext& context, const TensorView& statistics, std::int64_t pixels,
                     const TensorView& coefficients) const {
  ops::group_norm_join(context, {.statistics = statistics,
                                 .pixels = pixels,
                                 .weight = weight_.view,
                                 .groups = groups_,
                                 .coefficients = coefficients});
}

void GroupNorm::apply(ops::ExecutionContext& context, const TensorView& band, const TensorView& coefficients,
                      const TensorView& out, bool silu) const {
  ops::group_norm_apply(context,
                        {.x = band, .coefficients = coefficients, .bias = bias_.view, .silu = silu, .out = out});
}

}  // namespace octavo::layers
