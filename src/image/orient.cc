#include "image/orient.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "base/check.h"

namespace octavo::image {

Image orient(Image image, int orientation) {
  OCTAVO_CHECK(orientation >= 1 && orientation <= 8, "orientation {}", orientation);
  if (orientation == 1) return image;
  const bool swapped = swaps_sides(orientation);
  // Where the stored picture's first row and first column come to lie.
  const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool from_bottom = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Image upright{swapped ? image.height : image.width, swapped ? image.width : image.height, image.channels, {}};
  upright.pixels.resize(image.pixels.size());
  std::uint8_t* out = upright.pixels.data();
  for (int y = 0; y < upright.height; ++y) {
    for (int x = 0; x < upright.width; ++x) {
      const int column = swapped ? y : x, row = swapped ? x : y;
      const int stored_x = from_right ? image.width - 1 - column : column;
      const int stored_y = from_bottom ? image.height - 1 - row : row;
      const std::size_t at = static_cast<std::size_t>(stored_y) * image.width + stored_x;
      out = std::copy_n(image.pixels.data() + at * image.channels, image.channels, out);
    }
  }
  return upright;
}

}  // namespace octavo::image
