// The table of file formats: one file for each, one row each in format.cc.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "image/image.h"

namespace octavo::image {

using Bytes = std::span<const std::uint8_t>;

struct StoredSize {
  int width = 0;
  int height = 0;
};

/// Every function takes the whole file; `subject` names it in messages.
struct Format {
  std::string_view name;
  /// The bytes begin like a file of this format (any length, also zero).
  bool (*matches)(Bytes bytes);
  /// Width and height as stored, at least 1 each, before memory for pixels is taken.
  Result<StoredSize> (*read_size)(Bytes bytes, const std::string& subject);
  /// The TIFF structure of the file's EXIF, without "Exif\0\0"; empty when there is none or it cannot be reached.
  std::vector<std::uint8_t> (*read_exif)(Bytes bytes);
  /// Pixels as stored (orientation not applied), 3 or 4 channels. Called after the size was accepted.
  Result<Image> (*decode)(Bytes bytes, const std::string& subject);
};

extern const Format kPngFormat;
extern const Format kJpegFormat;
extern const Format kWebpFormat;

std::span<const Format* const> formats();

}  // namespace octavo::image
