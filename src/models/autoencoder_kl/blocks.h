// What encoder and decoder are both made of: the residual block and the middle with its attention, channels last.
#pragma once

#include <optional>
#include <string>

#include "layers/convolution.h"
#include "layers/linear.h"

namespace octavo::models {

/// The same memory with another shape; `buffer` is a view that is large enough.
TensorView reshaped(const TensorView& buffer, Shape shape);

/// GroupNorm, SiLU, 3x3 convolution, twice; plus the input, through a 1x1 convolution when the channels change.
struct AutoencoderResidual {
  layers::GroupNorm norm1, norm2;
  layers::Convolution conv1, conv2;
  std::optional<layers::Convolution> shortcut;
  std::int64_t in_channels = 0;
  std::int64_t out_channels = 0;

  /// `at` ends with a dot.
  static AutoencoderResidual load(layers::LoadContext& load, const std::string& at, std::int64_t in, std::int64_t out,
                                  int groups);
  /// `x` [B, height, width, in] becomes the block's output, in its own memory or in that of `spare`; what it left
  /// becomes `spare`. `spare` and `normed` are flat buffers that hold input and output.
  void forward(ops::ExecutionContext& context, TensorView& x, TensorView& spare, const TensorView& normed) const;
};

/// Residual block, attention over all positions with one head as wide as the channels, residual block.
struct AutoencoderMiddle {
  AutoencoderResidual before, after;
  layers::GroupNorm norm;
  layers::Linear qkv, out;
  std::int64_t channels = 0;

  static AutoencoderMiddle load(layers::LoadContext& load, const std::string& at, std::int64_t channels, int groups);
  /// As AutoencoderResidual::forward.
  void forward(ops::ExecutionContext& context, TensorView& x, TensorView& spare, const TensorView& normed) const;

 private:
  void attend(ops::ExecutionContext& context, const TensorView& x, const TensorView& normed_buffer) const;
};

}  // namespace octavo::models
