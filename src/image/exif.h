// EXIF, as much of it as a picture's meaning needs. The bytes are hostile: every offset and count is checked, nothing
// is followed twice, and what does not fit is as if it were not there. Source: CIPA DC-008-2019 (Exif 2.32), TIFF 6.0
// section 2.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace octavo::image {

struct Exif {
  int orientation = 1;       // 1 to 8
  std::string user_comment;  // UTF-8; empty when there is none, or it is in a code that is not read
};

/// `tiff` begins at the byte order mark ("II" or "MM"), without "Exif\0\0". Bytes that are no EXIF give the defaults.
Exif parse_exif(std::span<const std::uint8_t> tiff);

/// A TIFF that holds `user_comment` alone, in big-endian UTF-16 after "UNICODE\0": what A1111 writes into JPEG and
/// WebP. Requires well-formed UTF-8.
std::vector<std::uint8_t> write_exif(std::string_view user_comment);

}  // namespace octavo::image
