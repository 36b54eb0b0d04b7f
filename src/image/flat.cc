#include "image/flat.h"

#include <cstring>

namespace octavo::image {

bool is_flat(const Image& image) {
  const auto channels = static_cast<std::size_t>(image.channels);
  if (image.pixels.size() <= channels) return true;
  // Equal to itself one pixel further on = all pixels equal.
  return std::memcmp(image.pixels.data(), image.pixels.data() + channels, image.pixels.size() - channels) == 0;
}

}  // namespace octavo::image
