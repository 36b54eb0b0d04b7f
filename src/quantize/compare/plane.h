// Plane: one channel of a picture in double, and the one filter that the picture metrics share.
#pragma once

#include <span>
#include <vector>

namespace octavo::quantize {

struct Plane {
  Plane(int w, int h) : width(w), height(h), values(static_cast<std::size_t>(w) * static_cast<std::size_t>(h)) {}

  int width;
  int height;
  std::vector<double> values;  // row-major

  double mean() const;
};

/// Each pixel the mean of its surroundings under a Gaussian of standard deviation 1.5 pixels, 11 pixels a side, its
/// weights summing to 1; beyond an edge the picture is mirrored, the outermost pixel repeated (d c b a | a b c d).
/// This is the window of SSIM. Any size of at least one pixel.
Plane smooth(const Plane& plane);
inline constexpr int kWindowReach = 5;  // pixels to each side of the middle

/// Every second column and row, from the first; of a smoothed plane this is the next level of a pyramid.
Plane every_second(const Plane& plane);

}  // namespace octavo::quantize
