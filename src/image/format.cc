#include "image/format.h"

#include <array>

namespace octavo::image {

std::span<const Format* const> formats() {
  static constexpr std::array kFormats = {&kPngFormat, &kJpegFormat, &kWebpFormat};
  return kFormats;
}

}  // namespace octavo::image
