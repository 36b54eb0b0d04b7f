// Pictures in files: PNG, JPEG and WebP, told apart by their content and never by a name. Safe from any thread.
//
// Input is hostile: sizes are checked from the header before memory for the picture is taken, a file that is cut short
// or damaged is refused, and nothing a library complains about reaches the terminal or ends the process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"
#include "image/image.h"

namespace octavo::image {

struct DecodeLimits {
  std::size_t max_file_bytes = std::size_t{64} << 20;
  std::size_t max_pixels = std::size_t{1} << 26;
  int max_side = 16384;  // pixels; a WebP has at most 16383
};

struct ImageHeader {
  std::string_view format;  // "PNG", "JPEG" or "WebP"
  int width = 0;            // as a viewer shows it, its EXIF orientation applied
  int height = 0;
  int orientation = 1;  // EXIF 1 to 8, as stored; 1 when the file says nothing
};

/// The header alone, within `limits`; no pixel is read. Errors as those of decode(), as far as a header shows them.
Result<ImageHeader> read_header(std::span<const std::uint8_t> bytes, const std::string& subject,
                                const DecodeLimits& limits = {});

/// The picture upright (EXIF orientation applied) with 3 channels, or with 4 when the file stores transparency.
/// 16-bit samples are rounded to 8 bits; gamma and colour profiles are ignored, as Pillow does; the four inks of a CMYK
/// JPEG, which are stored inverted, become RGB as (255 - ink) * (255 - black) / 255. Of an animated PNG the still
/// picture is taken; an animated WebP, which has none, is refused.
/// `subject` names the picture in messages (a flag, a JSON field, a file). kInvalidArgument: not a picture, or of a
/// kind that is not read. kDataCorruption: damaged or cut short. kResourceExhausted: over `limits`.
Result<Image> decode(std::span<const std::uint8_t> bytes, const std::string& subject, const DecodeLimits& limits = {});

}  // namespace octavo::image
