#include "quantize/compare/perceptual_distance.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/check.h"
#include "quantize/compare/plane.h"

namespace octavo::quantize {
namespace {

constexpr int kMostLevels = 5;
constexpr int kLeastSide = 16;
constexpr double kLightnessThreshold = 0.02, kColourThreshold = 0.01;
constexpr double kLightnessContrast = 0.4, kLightnessStructure = 0.3, kColourContrast = 0.15;
constexpr double kRestScale = 0.1;

struct Opponents {
  Plane lightness, green_red, blue_yellow;
  std::array<Plane*, 3> planes() { return {&lightness, &green_red, &blue_yellow}; }
};

/// IEC 61966-2-1.
double linear_of(std::uint8_t stored) {
  const double value = stored / 255.0;
  return value <= 0.04045 ? value / 12.92 : std::pow((value + 0.055) / 1.055, 2.4);
}

Opponents oklab(const image::Image& picture) {
  std::array<double, 256> linear{};
  for (std::size_t i = 0; i < linear.size(); ++i) linear[i] = linear_of(static_cast<std::uint8_t>(i));
  const Plane empty(picture.width, picture.height);
  Opponents out{empty, empty, empty};
  for (std::size_t i = 0; i < empty.values.size(); ++i) {
    const double r = linear[picture.pixels[3 * i]], g = linear[picture.pixels[3 * i + 1]],
                 b = linear[picture.pixels[3 * i + 2]];
    const double l = std::cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
    const double m = std::cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
    const double s = std::cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
    out.lightness.values[i] = 0.2104542553 * l + 0.7936177850 * m - 0.0040720468 * s;
    out.green_red.values[i] = 1.9779984951 * l - 2.4285922050 * m + 0.4505937099 * s;
    out.blue_yellow.values[i] = 0.0259040371 * l + 0.7827717662 * m - 0.8086757660 * s;
  }
  return out;
}

template <typename Function>
Plane combined(const Plane& a, const Plane& b, Function function) {
  Plane out(a.width, a.height);
  for (std::size_t i = 0; i < out.values.size(); ++i) out.values[i] = function(a.values[i], b.values[i]);
  return out;
}

Plane magnitude(const Plane& plane) {
  return combined(plane, plane, [](double x, double) { return std::abs(x); });
}

double contrast_difference(const Plane& a, const Plane& b, double threshold) {
  const Plane apart = smooth(combined(a, b, [](double x, double y) { return std::abs(x - y); }));
  const Plane around_a = smooth(magnitude(a)), around_b = smooth(magnitude(b));
  double sum = 0;
  for (std::size_t i = 0; i < apart.values.size(); ++i) {
    sum += apart.values[i] / (threshold + around_a.values[i] + around_b.values[i]);
  }
  return sum / static_cast<double>(apart.values.size());
}

double structure_difference(const Plane& a, const Plane& b, double threshold) {
  const auto times = [](double x, double y) { return x * y; };
  const Plane aa = smooth(combined(a, a, times)), bb = smooth(combined(b, b, times)),
              ab = smooth(combined(a, b, times));
  const double floor = threshold * threshold;
  double sum = 0;
  for (std::size_t i = 0; i < ab.values.size(); ++i) {
    // Equal pictures give exactly 0: the square root of a square is exact.
    sum += (1 - (ab.values[i] + floor) / (std::sqrt(aa.values[i] * bb.values[i]) + floor)) / 2;
  }
  return std::max(0.0, sum / static_cast<double>(ab.values.size()));
}

double rest_difference(Opponents& a, Opponents& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.lightness.values.size(); ++i) {
    double squares = 0;
    for (std::size_t c = 0; c < 3; ++c) {
      const double d = a.planes()[c]->values[i] - b.planes()[c]->values[i];
      squares += d * d;
    }
    const double distance = std::sqrt(squares);
    sum += distance / (kRestScale + distance);
  }
  return sum / static_cast<double>(a.lightness.values.size());
}

}  // namespace

double perceptual_distance(const image::Image& first, const image::Image& second) {
  OCTAVO_CHECK(first.channels == 3 && second.channels == 3 && first.width == second.width &&
                   first.height == second.height && !first.pixels.empty() &&
                   first.pixels.size() == second.pixels.size(),
               "{} x {} x {} against {} x {} x {}", first.width, first.height, first.channels, second.width,
               second.height, second.channels);
  Opponents a = oklab(first), b = oklab(second);
  double total = 0;
  int levels = 0;
  do {
    for (std::size_t c = 0; c < 3; ++c) {
      Plane &plane_a = *a.planes()[c], &plane_b = *b.planes()[c];
      const Plane low_a = smooth(plane_a), low_b = smooth(plane_b);
      const auto minus = [](double x, double y) { return x - y; };
      const Plane detail_a = combined(plane_a, low_a, minus), detail_b = combined(plane_b, low_b, minus);
      if (c == 0) {
        total += kLightnessContrast * contrast_difference(detail_a, detail_b, kLightnessThreshold) +
                 kLightnessStructure * structure_difference(detail_a, detail_b, kLightnessThreshold);
      } else {
        total += kColourContrast * contrast_difference(detail_a, detail_b, kColourThreshold);
      }
      plane_a = every_second(low_a);
      plane_b = every_second(low_b);
    }
    ++levels;
  } while (levels < kMostLevels && std::min(a.lightness.width, a.lightness.height) >= kLeastSide);
  return (total + rest_difference(a, b)) / (levels + 1);
}

}  // namespace octavo::quantize
