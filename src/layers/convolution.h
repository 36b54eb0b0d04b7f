// Convolution and group norm with weights, channels last: what the autoencoder is made of.
#pragma once

#include <string>

#include "layers/load_context.h"
#include "ops/conv2d/conv2d.h"
#include "ops/group_norm/group_norm.h"

namespace octavo::layers {

/// A band of a taller picture carries a row of its neighbours above or below instead of padding there (ops/conv2d).
struct Halo {
  bool above = false;
  bool below = false;
};

class Convolution {
 public:
  Convolution() = default;
  /// <prefix>.weight [out, in, kernel, kernel] and <prefix>.bias [out]; padding keeps the size. `upsamples`: forward()
  /// is always called with `upsample`.
  static Convolution load(LoadContext& load, const std::string& prefix, std::int64_t in_channels,
                          std::int64_t out_channels, int kernel, bool upsamples = false);

  /// x [B, height, width, Cin]; out [B, height, width, Cout], doubled sides with `upsample`; `residual` as out.
  void forward(ops::ExecutionContext& context, const TensorView& x, const TensorView& out,
               const TensorView& residual = {}, bool upsample = false, Halo halo = {}) const;
  /// out [B, height / 2, width / 2, Cout]: stride 2, one row and column of zeros below and right of x (the
  /// autoencoder's encoder), x of even sides, kernel 3.
  void downsample(ops::ExecutionContext& context, const TensorView& x, const TensorView& out, Halo halo = {}) const;
  std::int64_t out_channels() const { return out_channels_; }

 private:
  std::int64_t out_channels_ = 0;
  int kernel_ = 3;
  ops::ConvWeight weight_;
  OwnedTensor bias_;
};

class GroupNorm {
 public:
  GroupNorm() = default;
  static GroupNorm load(LoadContext& load, const std::string& prefix, std::int64_t channels, int groups);
  /// out may be x.
  void forward(ops::ExecutionContext& context, const TensorView& x, const TensorView& out, bool silu) const;
  // The same in bands: every band is measured, then joined, then applied (ops/group_norm/group_norm_bands.h).
  void measure(ops::ExecutionContext& context, const TensorView& band, std::int64_t first_pixel,
               const TensorView& statistics) const;
  void join(ops::ExecutionContext& context, const TensorView& statistics, std::int64_t pixels,
            const TensorView& coefficients) const;
  void apply(ops::ExecutionContext& context, const TensorView& band, const TensorView& coefficients,
             const TensorView& out, bool silu) const;

 private:
  int groups_ = 1;
  OwnedTensor weight_;
  OwnedTensor bias_;
};

}  // namespace octavo::layers
