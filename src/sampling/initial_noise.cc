#include "sampling/initial_noise.h"

#include <algorithm>
#include <cmath>

namespace octavo::sampling {
namespace {

/// Above this mean cosine A1111 interpolates linearly.
constexpr double kParallel = 0.9995;
/// Below this sine a column has no plane to turn in.
constexpr double kSmallestSine = 1e-6;

/// Copies the middle of `from` [C, fh, fw] over the middle of `to` [C, h, w]; what does not fit is left out.
void paste_centred(const Shape& from_shape, std::span<const float> from, const Shape& to_shape, std::span<float> to) {
  // Floor division, as Python's: an odd difference of a larger source leaves its extra row or column behind.
  const auto floor_half = [](std::int64_t value) { return value >= 0 ? value / 2 : -((1 - value) / 2); };
  const std::int64_t dy = floor_half(to_shape[1] - from_shape[1]);
  const std::int64_t dx = floor_half(to_shape[2] - from_shape[2]);
  const std::int64_t rows = dy >= 0 ? from_shape[1] : from_shape[1] + 2 * dy;
  const std::int64_t columns = dx >= 0 ? from_shape[2] : from_shape[2] + 2 * dx;
  for (std::int64_t channel = 0; channel < to_shape[0]; ++channel) {
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int64_t source = (channel * from_shape[1] + row + std::max<std::int64_t>(-dy, 0)) * from_shape[2] +
                                  std::max<std::int64_t>(-dx, 0);
      const std::int64_t target =
          (channel * to_shape[1] + row + std::max<std::int64_t>(dy, 0)) * to_shape[2] + std::max<std::int64_t>(dx, 0);
      std::copy_n(from.begin() + source, columns, to.begin() + target);
    }
  }
}

}  // namespace

void slerp_columns(double strength, const Shape& shape, std::span<float> low, std::span<const float> high) {
  const std::int64_t channels = shape[0], height = shape[1], width = shape[2];
  std::vector<double> cosines(static_cast<std::size_t>(channels * width));
  double sum = 0;
  for (std::int64_t channel = 0; channel < channels; ++channel) {
    for (std::int64_t x = 0; x < width; ++x) {
      double low_square = 0, high_square = 0, product = 0;
      for (std::int64_t y = 0; y < height; ++y) {
        const auto at = static_cast<std::size_t>((channel * height + y) * width + x);
        low_square += static_cast<double>(low[at]) * low[at];
        high_square += static_cast<double>(high[at]) * high[at];
        product += static_cast<double>(low[at]) * high[at];
      }
      const double cosine = std::clamp(product / std::sqrt(low_square * high_square), -1.0, 1.0);
      cosines[static_cast<std::size_t>(channel * width + x)] = cosine;
      sum += cosine;
    }
  }
  const bool parallel = sum / static_cast<double>(cosines.size()) > kParallel;
  for (std::int64_t channel = 0; channel < channels; ++channel) {
    for (std::int64_t x = 0; x < width; ++x) {
      const double angle = std::acos(cosines[static_cast<std::size_t>(channel * width + x)]);
      const double sine = std::sin(angle);
      double low_weight = 1.0 - strength, high_weight = strength;
      if (parallel) {
        std::swap(low_weight, high_weight);
      } else if (sine > kSmallestSine) {
        low_weight = std::sin((1.0 - strength) * angle) / sine;
        high_weight = std::sin(strength * angle) / sine;
      }
      for (std::int64_t y = 0; y < height; ++y) {
        const auto at = static_cast<std::size_t>((channel * height + y) * width + x);
        low[at] = static_cast<float>(low_weight) * low[at] + static_cast<float>(high_weight) * high[at];
      }
    }
  }
}

NoiseStream draw_initial_noise(const NoiseOptions& options, const Shape& shape, std::span<float> out) {
  OCTAVO_CHECK(shape.rank() == 3 && static_cast<std::size_t>(shape.element_count()) == out.size(),
               "noise of {} into {}", shape.to_string(), out.size());
  NoiseStream stream(options.source, options.seed);
  stream.normal(out);
  const bool varied = options.subseed_strength != 0;
  const bool resized = options.resize_height > 0 && options.resize_width > 0 &&
                       (options.resize_height != shape[1] || options.resize_width != shape[2]);
  if (!varied && !resized) return stream;

  const Shape drawn_shape = resized ? Shape{shape[0], options.resize_height, options.resize_width} : shape;
  std::vector<float> drawn(static_cast<std::size_t>(drawn_shape.element_count()));
  NoiseStream(options.source, options.seed).normal(drawn);
  if (varied) {
    std::vector<float> other(drawn.size());
    NoiseStream(options.source, options.subseed).normal(other);
    slerp_columns(options.subseed_strength, drawn_shape, drawn, other);
  }
  if (resized) {
    paste_centred(drawn_shape, drawn, shape, out);
  } else {
    std::copy(drawn.begin(), drawn.end(), out.begin());
  }
  return stream;
}

}  // namespace octavo::sampling
