#include "quantize/compare/plane.h"

#include <array>
#include <cmath>
#include <numeric>

namespace octavo::quantize {
namespace {

constexpr double kDeviation = 1.5;
using Taps = std::array<double, 2 * kWindowReach + 1>;

Taps gaussian() {
  Taps taps{};
  for (int i = -kWindowReach; i <= kWindowReach; ++i) {
    taps[static_cast<std::size_t>(i + kWindowReach)] = std::exp(-0.5 * i * i / (kDeviation * kDeviation));
  }
  const double sum = std::accumulate(taps.begin(), taps.end(), 0.0);
  for (double& tap : taps) tap /= sum;
  return taps;
}

/// `at` mirrored into [0, count).
int mirrored(int at, int count) {
  while (at < 0 || at >= count) at = at < 0 ? -1 - at : 2 * count - 1 - at;
  return at;
}

}  // namespace

double Plane::mean() const {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

Plane smooth(const Plane& plane) {
  const Taps taps = gaussian();
  const auto width = static_cast<std::size_t>(plane.width);
  Plane along_rows(plane.width, plane.height), out(plane.width, plane.height);
  std::vector<double> padded(width + 2 * kWindowReach);
  for (int y = 0; y < plane.height; ++y) {
    const double* row = plane.values.data() + static_cast<std::size_t>(y) * width;
    for (int x = -kWindowReach; x < plane.width + kWindowReach; ++x) {
      padded[static_cast<std::size_t>(x + kWindowReach)] = row[mirrored(x, plane.width)];
    }
    double* to = along_rows.values.data() + static_cast<std::size_t>(y) * width;
    for (std::size_t k = 0; k < taps.size(); ++k) {
      for (std::size_t x = 0; x < width; ++x) to[x] += taps[k] * padded[x + k];
    }
  }
  for (int y = 0; y < plane.height; ++y) {
    double* to = out.values.data() + static_cast<std::size_t>(y) * width;
    for (int k = -kWindowReach; k <= kWindowReach; ++k) {
      const double* row = along_rows.values.data() + static_cast<std::size_t>(mirrored(y + k, plane.height)) * width;
      const double tap = taps[static_cast<std::size_t>(k + kWindowReach)];
      for (std::size_t x = 0; x < width; ++x) to[x] += tap * row[x];
    }
  }
  return out;
}

Plane every_second(const Plane& plane) {
  Plane out((plane.width + 1) / 2, (plane.height + 1) / 2);
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x) {
      out.values[static_cast<std::size_t>(y) * out.width + x] =
          plane.values[static_cast<std::size_t>(2 * y) * plane.width + 2 * x];
    }
  }
  return out;
}

}  // namespace octavo::quantize
