// The three steps as their formulas say, in double.
#include <algorithm>
#include <cmath>

#include "ops/activation/activation_kernels.h"
#include "ops/group_norm/group_norm_kernels.h"
#include "ops/rows.h"

namespace octavo::ops {
namespace {

/// Pixel `index` of a band.
Row pixel_of(const TensorView& view, std::int64_t index) {
  return {view, {0, index / view.dim(2), index % view.dim(2)}};
}

}  // namespace

void group_norm_measure_reference(ExecutionContext&, const GroupNormMeasureArgs& args, void*) {
  const std::int64_t pixels = args.x.dim(1) * args.x.dim(2), channels = args.x.dim(3);
  for (std::int64_t first = 0; first < pixels; first += kBlockPixels) {
    const std::int64_t last = std::min(first + kBlockPixels, pixels);
    float* means = args.statistics.f32() + (args.first_pixel + first) / kBlockPixels * 2 * channels;
    for (std::int64_t c = 0; c < channels; ++c) {
      double mean = 0, squares = 0;
      for (std::int64_t i = first; i < last; ++i) mean += pixel_of(args.x, i)[c];
      mean /= static_cast<double>(last - first);
      for (std::int64_t i = first; i < last; ++i) {
        const double difference = pixel_of(args.x, i)[c] - mean;
        squares += difference * difference;
      }
      means[c] = static_cast<float>(mean);
      means[channels + c] = static_cast<float>(squares);
    }
  }
}

void join_group_norm_blocks(const float* statistics, std::int64_t pixels, std::int64_t channels, int groups, float eps,
                            const float* weight, float* coefficients) {
  const std::int64_t group_channels = channels / groups;
  for (std::int64_t group = 0; group < groups; ++group) {
    double count = 0;
    double mean = 0;
    double squares = 0;
    for (std::int64_t block = 0; block < group_norm_blocks(pixels); ++block) {
      const float* means = statistics + block * 2 * channels;
      const auto block_pixels = static_cast<double>(std::min(kBlockPixels, pixels - block * kBlockPixels));
      for (std::int64_t c = group * group_channels; c < (group + 1) * group_channels; ++c) {
        const double difference = means[c] - mean;
        const double joined = count + block_pixels;
        squares += means[channels + c] + difference * difference * (count * block_pixels / joined);
        mean += difference * (block_pixels / joined);
        count = joined;
      }
    }
    const double inverse_deviation = 1.0 / std::sqrt(squares / count + eps);
    for (std::int64_t c = group * group_channels; c < (group + 1) * group_channels; ++c) {
      coefficients[c] = static_cast<float>(mean);
      coefficients[channels + c] = static_cast<float>(weight[c] * inverse_deviation);
    }
  }
}

void group_norm_join_reference(ExecutionContext&, const GroupNormJoinArgs& args, void*) {
  join_group_norm_blocks(args.statistics.f32(), args.pixels, args.statistics.dim(2), args.groups, args.eps,
                         args.weight.f32(), args.coefficients.f32());
}

void group_norm_apply_reference(ExecutionContext&, const GroupNormApplyArgs& args, void*) {
  const std::int64_t pixels = args.x.dim(1) * args.x.dim(2), channels = args.x.dim(3);
  const Activation activation = args.silu ? Activation::kSilu : Activation::kNone;
  for (std::int64_t i = 0; i < pixels; ++i) {
    const Row x = pixel_of(args.x, i), out = pixel_of(args.out, i);
    for (std::int64_t c = 0; c < channels; ++c) {
      const double centred = static_cast<double>(x[c]) - args.coefficients.f32()[c];
      const double normal = centred * args.coefficients.f32()[channels + c] + args.bias.f32()[c];
      out.set(c, static_cast<float>(activate_reference(activation, normal)));
    }
  }
}

}  // namespace octavo::ops
