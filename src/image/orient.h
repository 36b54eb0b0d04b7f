// EXIF orientation: the picture as a viewer shows it.
#pragma once

#include "image/image.h"

namespace octavo::image {

/// Orientations 5 to 8 exchange width and height.
constexpr bool swaps_sides(int orientation) { return orientation >= 5; }

/// Requires an orientation from 1 to 8 (tag 0x0112 of EXIF: 2 mirrored, 3 upside down, 4 flipped, 5 transposed,
/// 6 to be turned 90 degrees clockwise, 7 transposed along the other diagonal, 8 to be turned counter-clockwise).
Image orient(Image image, int orientation);

}  // namespace octavo::image
