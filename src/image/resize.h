// Scaling, bit for bit as Pillow's Image.resize: separable filters widened by the scale when the picture shrinks
// (so that nothing aliases), coefficients of 22 bits, rows before columns, the rows' result rounded to 8 bits. (Pillow
// 13 alone takes the columns first when the height shrinks much more than the width; that moves a result by some
// levels.)
#pragma once

#include "image/image.h"

namespace octavo::image {

enum class ResizeFilter {
  kBox,       // area: each result is the mean of what it covers
  kBilinear,  // triangle of support 1
  kBicubic,   // Keys' cubic, a = -0.5, support 2
  kLanczos,   // sinc windowed by sinc, support 3
};

/// A region in whole pixels: x1 and y1 inside, x2 and y2 just outside.
struct Box {
  int x1 = 0, y1 = 0, x2 = 0, y2 = 0;
  int width() const { return x2 - x1; }
  int height() const { return y2 - y1; }
  bool operator==(const Box&) const = default;
};

/// Requires sides of at least 1 on both. RGBA is filtered with its colours multiplied by alpha, so that the colour of
/// what cannot be seen does not bleed in.
Image resize(const Image& image, int width, int height, ResizeFilter filter);

/// How a picture of one shape becomes one of another; A1111's `resize_mode` 0, 1 and 2. Filtered by Lanczos.
enum class FitMode {
  kStretch,
  kCrop,  // covers the target, the middle is kept
  kFill,  // fits inside the target; the outermost rows or columns are repeated to its edges
};

Image fit(const Image& image, int width, int height, FitMode mode);

/// Requires a box within the picture, of at least one pixel.
Image crop(const Image& image, const Box& box);

}  // namespace octavo::image
