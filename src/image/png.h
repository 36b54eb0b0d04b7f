// PNG files in memory: 8-bit grey, RGB and RGBA, with text chunks. Safe from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "image/image.h"
#include "image/png_chunks.h"

namespace octavo::image {

struct PngOptions {
  /// zlib level 0 to 9. On drawn pictures of 256x256 (png_bench.cc) level 4 makes the smallest file of all: 11 ms and
  /// 76 kB, against 4 ms and 92 kB at level 1, 41 ms and 79 kB at level 6.
  int compression_level = 4;
};

/// Text goes to tEXt in Latin-1 when every character fits, else to iTXt in UTF-8, uncompressed and without language:
/// what A1111 (through Pillow) writes and its readers expect. Requires a picture whose `pixels` has byte_count()
/// bytes, 1, 3 or 4 channels and sides of at least 1; kInvalidArgument when a text is not UTF-8 or holds a NUL.
Result<std::vector<std::uint8_t>> encode_png(const Image& image, std::span<const PngText> texts = {},
                                             const PngOptions& options = {});

struct DecodedPng {
  Image image;                 // grey, RGB or RGBA; palettes, 16-bit and grey-alpha are converted
  std::vector<PngText> texts;  // tEXt, zTXt and iTXt in file order, as UTF-8
};

/// Refuses a picture of more than `max_pixels` from its header, before memory for it is taken.
/// kDataCorruption when the bytes are not a whole PNG; kResourceExhausted over the limit.
Result<DecodedPng> decode_png(std::span<const std::uint8_t> bytes, std::size_t max_pixels = std::size_t{1} << 26);

}  // namespace octavo::image
