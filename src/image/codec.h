// Pictures in files: PNG, JPEG and WebP, read by their content and never by a name. Safe from any thread.
//
// Input is hostile: sizes are checked from the header before memory for the picture is taken, a file that is cut short
// or damaged is refused, and nothing a library complains about reaches the terminal or ends the process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

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

/// The format whose files begin like these bytes; the first 12 of a file are enough. Nothing when there is none.
std::optional<std::string_view> format_of_content(std::span<const std::uint8_t> bytes);

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

/// The generation parameters that a picture of ours, A1111's or another program's carries: the PNG text "parameters",
/// else EXIF's UserComment. UTF-8; empty when there is none. Errors as those of read_header().
Result<std::string> read_parameters(std::span<const std::uint8_t> bytes, const std::string& subject,
                                    const DecodeLimits& limits = {});

/// The format that a file's name asks for by its extension (".png", ".jpg", ".jpeg", ".webp"; any case), as it is named
/// in ImageHeader; nothing when the extension is another one.
std::optional<std::string_view> format_of_name(std::string_view file_name);

/// ".png, .jpg, .jpeg, .webp": for messages.
std::string known_extensions();

struct EncodeOptions {
  std::optional<int> quality;  // 1 to 100; JPEG and lossy WebP; left out: kDefaultQuality
  bool lossless = false;       // WebP; PNG is always
  std::string parameters;      // UTF-8: PNG text "parameters", EXIF UserComment in the others; empty: none written
};

inline constexpr int kDefaultQuality = 90;

/// Requires a name that format_of_name() gives and a picture with 1, 3 or 4 channels. kInvalidArgument, with the field
/// ("quality", "lossless", "parameters", "image") as subject: an option that the format does not have, a text too long
/// for it, transparency in a JPEG, sides over the format's own limit.
Result<std::vector<std::uint8_t>> encode(const Image& image, std::string_view format, const EncodeOptions& options);

}  // namespace octavo::image
