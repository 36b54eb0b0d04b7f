// The noise a picture begins with: a seed's own, or one that leans towards a second seed ("variation seed"), or one
// that keeps what a picture of another size had in its middle ("seed resize"). Definitions are AUTOMATIC1111's
// (modules/rng.py of 1.10), so that its seeds, variation seeds and strengths mean the same here.
#pragma once

#include "sampling/noise_stream.h"
#include "tensor/tensor.h"

namespace octavo::sampling {

/// One picture's noise. A value; part of a job.
struct NoiseOptions {
  NoiseSource source = NoiseSource::kTorchCpu;
  std::int64_t seed = 0;
  std::int64_t subseed = 0;
  double subseed_strength = 0;  // 0 = the seed's noise alone, 1 = the subseed's
  /// Latent size at which the seed (and subseed) is drawn, when both are above 0: the result is pasted, centred, into
  /// the seed's noise of the real size.
  std::int64_t resize_height = 0;
  std::int64_t resize_width = 0;
};

/// Fills `out` [C, height, width] and returns the seed's stream as it stands after its first draw of that size: what
/// a sampler that adds noise draws from. `shape` is [C, height, width].
NoiseStream draw_initial_noise(const NoiseOptions& options, const Shape& shape, std::span<float> out);

/// Spherical interpolation from `low` (at 0) to `high` (at 1), column by column: for every channel and x the vector
/// over y turns by its own angle. Linear, and with the two ends swapped as in A1111, when the columns point the same
/// way on average (mean cosine above 0.9995). `shape` is [C, height, width]; `low` is read and written.
void slerp_columns(double strength, const Shape& shape, std::span<float> low, std::span<const float> high);

}  // namespace octavo::sampling
