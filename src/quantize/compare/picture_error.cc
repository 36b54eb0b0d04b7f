#include "quantize/compare/picture_error.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "base/check.h"
#include "quantize/compare/plane.h"

namespace octavo::quantize {
namespace {

void check_pair(const image::Image& a, const image::Image& b) {
  OCTAVO_CHECK(a.channels == 3 && b.channels == 3 && a.width == b.width && a.height == b.height && !a.pixels.empty() &&
                   a.pixels.size() == b.pixels.size(),
               "{} x {} x {} against {} x {} x {}", a.width, a.height, a.channels, b.width, b.height, b.channels);
}

/// ITU-R BT.601's luma of the stored values, as SSIM's authors take it.
Plane brightness(const image::Image& picture) {
  Plane plane(picture.width, picture.height);
  for (std::size_t i = 0; i < plane.values.size(); ++i) {
    const std::uint8_t* pixel = picture.pixels.data() + 3 * i;
    plane.values[i] = 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2];
  }
  return plane;
}

Plane product(const Plane& a, const Plane& b) {
  Plane out(a.width, a.height);
  for (std::size_t i = 0; i < out.values.size(); ++i) out.values[i] = a.values[i] * b.values[i];
  return out;
}

}  // namespace

double psnr_db(const image::Image& reference, const image::Image& test) {
  check_pair(reference, test);
  long long sum = 0;
  for (std::size_t i = 0; i < reference.pixels.size(); ++i) {
    const int d = reference.pixels[i] - test.pixels[i];
    sum += d * d;
  }
  if (sum == 0) return std::numeric_limits<double>::infinity();
  return 10 * std::log10(255.0 * 255.0 * static_cast<double>(reference.pixels.size()) / static_cast<double>(sum));
}

double ssim(const image::Image& reference, const image::Image& test) {
  check_pair(reference, test);
  OCTAVO_CHECK(std::min(reference.width, reference.height) > 2 * kWindowReach, "a window does not fit into {} x {}",
               reference.width, reference.height);
  constexpr double kC1 = 0.01 * 255 * 0.01 * 255, kC2 = 0.03 * 255 * 0.03 * 255;
  const Plane a = brightness(reference), b = brightness(test);
  const Plane mean_a = smooth(a), mean_b = smooth(b);
  const Plane aa = smooth(product(a, a)), bb = smooth(product(b, b)), ab = smooth(product(a, b));
  double sum = 0;
  for (int y = kWindowReach; y < a.height - kWindowReach; ++y) {
    for (int x = kWindowReach; x < a.width - kWindowReach; ++x) {
      const std::size_t i = static_cast<std::size_t>(y) * a.width + x;
      const double ma = mean_a.values[i], mb = mean_b.values[i];
      const double variance_a = aa.values[i] - ma * ma, variance_b = bb.values[i] - mb * mb;
      const double covariance = ab.values[i] - ma * mb;
      sum +=
          (2 * ma * mb + kC1) * (2 * covariance + kC2) / ((ma * ma + mb * mb + kC1) * (variance_a + variance_b + kC2));
    }
  }
  return sum / (static_cast<double>(a.width - 2 * kWindowReach) * (a.height - 2 * kWindowReach));
}

image::Image difference_map(const image::Image& reference, const image::Image& test, int factor) {
  check_pair(reference, test);
  image::Image out = reference;
  for (std::size_t i = 0; i < out.pixels.size(); ++i) {
    const int difference = std::abs(reference.pixels[i] - test.pixels[i]);
    out.pixels[i] = static_cast<std::uint8_t>(std::min(255, difference * factor));
  }
  return out;
}

void DifferenceHistogram::add(const image::Image& reference, const image::Image& test) {
  check_pair(reference, test);
  for (std::size_t i = 0; i < reference.pixels.size(); ++i) {
    ++counts_[std::abs(reference.pixels[i] - test.pixels[i])];
  }
}

int DifferenceHistogram::quantile(double share) const {
  long long total = 0;
  for (const long long count : counts_) total += count;
  long long seen = 0;
  for (int value = 0; value < 256; ++value) {
    seen += counts_[value];
    if (static_cast<double>(seen) >= share * static_cast<double>(total)) return value;
  }
  return 255;
}

}  // namespace octavo::quantize
