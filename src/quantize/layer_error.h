// What 8 bits cost one product, measured on inputs that calibration kept: the product of codes against the exact one.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quantize/recipe.h"
#include "quantize/statistics.h"
#include "weights/export/tensor_source.h"

namespace octavo::quantize {

/// A layer's weight as far as measuring needs it: `kMeasuredRows` output channels, evenly spread, and what all of them
/// say of the input channels.
struct WeightSample {
  static constexpr std::int64_t kMeasuredRows = 256;
  std::int64_t rows = 0, channels = 0;
  std::vector<float> values;        // [rows, channels]
  std::vector<float> channel_amax;  // [channels], over all output channels
};
/// Reads the weight once, a portion at a time. kDataCorruption naming a weight that is not finite.
Result<WeightSample> sample_weight(const weights::TensorSource& source, std::size_t part, const std::string& layer);

/// The kept tokens of a layer's input in f32, [rows, channels].
struct InputSample {
  std::int64_t rows = 0, channels = 0;
  std::vector<float> values;
};
InputSample sample_of(std::span<const InputStatistics* const> inputs);

/// Squared error over squared output of the layer as the recipe has it (format, grains, static_amax, smooth, outliers),
/// without its bias: sum (x W - q(x) q(W))^2 / sum (x W)^2. 0 when the exact output is 0.
double output_error(const LayerRecipe& recipe, const InputSample& input, const WeightSample& weight);

}  // namespace octavo::quantize
