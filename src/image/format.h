// The table of file formats: one file for each, one row each in format.cc.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "image/codec.h"
#include "image/image.h"

namespace octavo::image {

using Bytes = std::span<const std::uint8_t>;

struct StoredSize {
  int width = 0;
  int height = 0;
};

struct Metadata {
  std::vector<std::uint8_t> exif;  // the TIFF structure, without "Exif\0\0"; empty when there is none
  std::string parameters;          // what the format keeps outside EXIF; UTF-8
};

/// Every function takes the whole file; `subject` names it in messages.
struct Format {
  std::string_view name;
  std::vector<std::string_view> extensions;  // lower case, with the dot; the first is the usual one
  bool lossy = false;                        // EncodeOptions::quality means something
  bool lossless = false;                     // EncodeOptions::lossless is possible
  /// The bytes begin like a file of this format (any length, also zero).
  bool (*matches)(Bytes bytes);
  /// Width and height as stored, at least 1 each, before memory for pixels is taken.
  Result<StoredSize> (*read_size)(Bytes bytes, const std::string& subject);
  /// Never fails: what cannot be reached is as if it were not there.
  Metadata (*read_metadata)(Bytes bytes);
  /// Pixels as stored (orientation not applied), 3 or 4 channels. Called after the size was accepted.
  Result<Image> (*decode)(Bytes bytes, const std::string& subject);
  /// Called with a well-formed picture and options that were checked against the fields above.
  Result<std::vector<std::uint8_t>> (*encode)(const Image& image, const EncodeOptions& options);
};

extern const Format kPngFormat;
extern const Format kJpegFormat;
extern const Format kWebpFormat;

std::span<const Format* const> formats();

/// Three channels from one.
Image rgb_from_grey(const Image& grey);

}  // namespace octavo::image
