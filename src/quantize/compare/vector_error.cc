#include "quantize/compare/vector_error.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"

namespace octavo::quantize {

VectorError vector_error(std::span<const float> reference, std::span<const float> test) {
  OCTAVO_CHECK(!reference.empty() && reference.size() == test.size(), "{} elements against {}", reference.size(),
               test.size());
  double signal = 0, other = 0, product = 0, noise = 0;
  for (std::size_t i = 0; i < reference.size(); ++i) {
    const double r = reference[i], t = test[i], d = r - t;
    signal += r * r;
    other += t * t;
    product += r * t;
    noise += d * d;
  }
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (noise == 0) return {kInfinity, 1, 0};
  if (signal == 0) return {-kInfinity, 0, kInfinity};
  const double cosine = other == 0 ? 0 : product / (std::sqrt(signal) * std::sqrt(other));
  return {10 * std::log10(signal / noise), std::clamp(cosine, -1.0, 1.0), std::sqrt(noise / signal)};
}

}  // namespace octavo::quantize
