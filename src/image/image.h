// Image: 8-bit pixels, the plain value both columns pass around.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace octavo::image {

/// Interleaved 8-bit pixels, row-major, no row padding: pixels[(y * width + x) * channels + c].
struct Image {
  int width = 0;
  int height = 0;
  int channels = 3;  // 1 grey, 3 RGB, 4 RGBA (not premultiplied)
  std::vector<std::uint8_t> pixels;

  std::size_t byte_count() const { return static_cast<std::size_t>(width) * height * channels; }
};

}  // namespace octavo::image
