// How far a tensor is from the one it should be: the three figures that velocities and latents are compared by.
#pragma once

#include <span>

namespace octavo::quantize {

/// Of `test` against `reference`, over all elements; sums in double.
struct VectorError {
  double sqnr_db = 0;      // 10 log10(sum r^2 / sum (r - t)^2); infinite when equal
  double cosine = 0;       // of the angle between the two; 1 when equal
  double relative_l2 = 0;  // |r - t| / |r|; 0 when equal
};

/// Requires as many elements in both, and at least one. A reference of zeros alone gives minus infinity, 0 and
/// infinity unless the other is the same.
VectorError vector_error(std::span<const float> reference, std::span<const float> test);

}  // namespace octavo::quantize
