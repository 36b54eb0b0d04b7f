#include "image/format.h"

#include <array>

namespace octavo::image {

std::span<const Format* const> formats() {
  static constexpr std::array kFormats = {&kPngFormat, &kJpegFormat, &kWebpFormat};
  return kFormats;
}

Image rgb_from_grey(const Image& grey) {
  Image rgb{grey.width, grey.height, 3, {}};
  rgb.pixels.reserve(rgb.byte_count());
  for (const std::uint8_t value : grey.pixels) rgb.pixels.insert(rgb.pixels.end(), 3, value);
  return rgb;
}

}  // namespace octavo::image
