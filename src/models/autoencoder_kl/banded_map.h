// A feature map worked on in bands of rows, in place: beside it no second map of its size ever exists.
//
// A group norm needs the whole picture's statistics before it can change the first pixel. So a residual block goes over
// the map three times: to measure its input; to measure what the first convolution makes of it, band by band, keeping
// nothing; to compute that again and write the result over the input. Half again the arithmetic of the whole map (an
// upsampling that is folded into a block runs three times), for a quarter of its memory and less, and no seams: every
// pixel is what the whole map has, up to the last bit of oneDNN's sums.
#pragma once

#include <functional>

#include "layers/convolution.h"
#include "models/autoencoder_kl/blocks.h"

namespace octavo::models {

/// Rows [begin, end) of a picture.
struct Rows {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t count() const { return end - begin; }
};

/// Some rows of a map: view [1, rows, width, C].
struct Band {
  TensorView view;
  Rows rows;
  TensorView slice(Rows part) const { return view.slice(1, part.begin - rows.begin, part.count()); }
};

/// One picture. Takes its memory from the context's arena: lives within the caller's Scope and below its later ones.
class BandedMap {
 public:
  /// `capacity` elements of `dtype`: the largest map that it will hold. `band_elements` of a band's widest tensor:
  /// large enough that the rows computed twice at its borders, and the weights read once a band, do not count.
  BandedMap(ops::ExecutionContext& context, DType dtype, std::int64_t capacity, std::int64_t band_elements);

  /// [1, height, width, C]; valid until the next call that changes the map.
  const TensorView& view() const { return map_; }

  /// A copy of `map` [1, height, width, C].
  void start(const TensorView& map);
  /// What `convolution` (3x3) makes of `picture` [1, height, width, Cin] f32.
  void start(const TensorView& picture, const layers::Convolution& convolution);
  /// One residual block; with `upsample` of the map doubled by it first, which is then never held whole.
  void residual(const AutoencoderResidual& block, const layers::Convolution* upsample = nullptr);
  void upsample(const layers::Convolution& convolution);
  void downsample(const layers::Convolution& convolution);
  /// Norm, SiLU, 3x3 convolution into `out` [1, height, width, Cout]; the map stays as it is.
  void finish(const layers::GroupNorm& norm, const layers::Convolution& convolution, const TensorView& out) const;

 private:
  using MeasureBand = std::function<TensorView(Rows band)>;
  /// Statistics of a map of `height` x `width` pixels that `band` gives band by band, as coefficients [2, C] of `norm`.
  void measure(const layers::GroupNorm& norm, std::int64_t height, std::int64_t width, std::int64_t band_rows,
               const TensorView& coefficients, const MeasureBand& band) const;
  /// Replaces the map by one of `shape`: `needed` names the old rows behind a band of new ones, `write` makes the band
  /// from them. Old rows are read once, before anything is written over them.
  void replace(const Shape& shape, std::int64_t band_rows, const std::function<Rows(Rows band)>& needed,
               const std::function<void(const Band& old, Rows band, const TensorView& target)>& write);
  /// How many rows of `channels` make a band.
  std::int64_t rows_of(std::int64_t width, std::int64_t channels) const { return band_elements_ / (width * channels); }
  Band stored() const { return {map_, {0, map_.dim(1)}}; }

  ops::ExecutionContext& context_;
  DType dtype_;
  std::int64_t band_elements_;
  TensorView buffer_;  // [capacity]
  TensorView map_;     // at the buffer's front or its back
  bool at_front_ = true;
};

}  // namespace octavo::models
