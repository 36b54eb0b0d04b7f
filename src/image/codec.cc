#include "image/codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "base/utf8.h"
#include "image/exif.h"
#include "image/format.h"
#include "image/orient.h"

namespace octavo::image {
namespace {

bool begins_with(Bytes bytes, std::size_t at, std::string_view mark) {
  return bytes.size() >= at + mark.size() &&
         std::string_view(reinterpret_cast<const char*>(bytes.data()) + at, mark.size()) == mark;
}

/// What the bytes are when they are none of ours, for the message alone.
std::string_view other_kind(Bytes bytes) {
  struct Mark {
    std::size_t at;
    std::string_view mark, name;
  };
  static constexpr std::array kMarks = {
      Mark{0, "GIF8", "a GIF"},
      Mark{0, "BM", "a BMP"},
      Mark{0, {"II*\0", 4}, "a TIFF"},
      Mark{0, {"MM\0*", 4}, "a TIFF"},
      Mark{4, "ftypavif", "an AVIF"},
      Mark{4, "ftyphei", "a HEIF"},
      Mark{4, "ftypmif1", "a HEIF"},
      Mark{0, "%PDF", "a PDF"},
      Mark{0, "<", "text (HTML, XML or SVG)"},
      Mark{0, "version https://git-lfs", "a Git LFS pointer and not the file itself"}};
  for (const Mark& mark : kMarks) {
    if (begins_with(bytes, mark.at, mark.mark)) return mark.name;
  }
  return {};
}

struct Opened {
  const Format* format = nullptr;
  ImageHeader header;
};

Result<Opened> open(Bytes bytes, const std::string& subject, const DecodeLimits& limits) {
  if (bytes.empty()) return invalid_argument(subject, "is empty, not a picture");
  if (bytes.size() > limits.max_file_bytes) {
    return resource_exhausted(
        subject, fmt::format("has {} bytes; at most {} are accepted", bytes.size(), limits.max_file_bytes));
  }
  for (const Format* format : formats()) {
    if (!format->matches(bytes)) continue;
    OCTAVO_ASSIGN_OR_RETURN(const StoredSize size, format->read_size(bytes, subject));
    if (size.width > limits.max_side || size.height > limits.max_side) {
      return resource_exhausted(subject, fmt::format("is {}x{}; sides of at most {} pixels are accepted", size.width,
                                                     size.height, limits.max_side));
    }
    if (static_cast<std::size_t>(size.width) * static_cast<std::size_t>(size.height) > limits.max_pixels) {
      return resource_exhausted(
          subject, fmt::format("is {}x{}; at most {} pixels are accepted", size.width, size.height, limits.max_pixels));
    }
    const int orientation = parse_exif(format->read_metadata(bytes).exif).orientation;
    const bool swapped = swaps_sides(orientation);
    return Opened{format,
                  {.format = format->name,
                   .width = swapped ? size.height : size.width,
                   .height = swapped ? size.width : size.height,
                   .orientation = orientation}};
  }
  const std::string_view kind = other_kind(bytes);
  if (kind.empty()) return invalid_argument(subject, "is not a picture: PNG, JPEG and WebP are read");
  return invalid_argument(subject, fmt::format("is {}: convert it, PNG, JPEG and WebP are read", kind));
}

}  // namespace

std::optional<std::string_view> format_of_content(Bytes bytes) {
  for (const Format* format : formats()) {
    if (format->matches(bytes)) return format->name;
  }
  return std::nullopt;
}

Result<ImageHeader> read_header(Bytes bytes, const std::string& subject, const DecodeLimits& limits) {
  OCTAVO_ASSIGN_OR_RETURN(const Opened opened, open(bytes, subject, limits));
  return opened.header;
}

Result<Image> decode(Bytes bytes, const std::string& subject, const DecodeLimits& limits) {
  OCTAVO_ASSIGN_OR_RETURN(const Opened opened, open(bytes, subject, limits));
  OCTAVO_ASSIGN_OR_RETURN(Image stored, opened.format->decode(bytes, subject));
  return orient(std::move(stored), opened.header.orientation);
}

Result<std::string> read_parameters(Bytes bytes, const std::string& subject, const DecodeLimits& limits) {
  OCTAVO_ASSIGN_OR_RETURN(const Opened opened, open(bytes, subject, limits));
  Metadata metadata = opened.format->read_metadata(bytes);
  if (!metadata.parameters.empty()) return std::move(metadata.parameters);
  return parse_exif(metadata.exif).user_comment;
}

std::optional<std::string_view> format_of_name(std::string_view file_name) {
  const std::size_t dot = file_name.find_last_of("./");
  if (dot == std::string_view::npos || file_name[dot] != '.') return std::nullopt;
  std::string extension(file_name.substr(dot));
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const Format* format : formats()) {
    for (const std::string_view known : format->extensions) {
      if (known == extension) return format->name;
    }
  }
  return std::nullopt;
}

std::string known_extensions() {
  std::string all;
  for (const Format* format : formats()) {
    for (const std::string_view extension : format->extensions) all.append(all.empty() ? "" : ", ").append(extension);
  }
  return all;
}

Result<std::vector<std::uint8_t>> encode(const Image& image, std::string_view format, const EncodeOptions& options) {
  OCTAVO_CHECK(image.width > 0 && image.height > 0 && image.pixels.size() == image.byte_count(),
               "a {}x{}x{} picture with {} bytes", image.width, image.height, image.channels, image.pixels.size());
  OCTAVO_CHECK(image.channels == 1 || image.channels == 3 || image.channels == 4, "{} channels", image.channels);
  const auto row = std::find_if(formats().begin(), formats().end(), [&](const Format* f) { return f->name == format; });
  OCTAVO_CHECK(row != formats().end(), "no format is named {}", format);
  if (options.quality && !(*row)->lossy) {
    return invalid_argument("quality", fmt::format("{} loses nothing and has no quality: leave it out", format));
  }
  if (options.quality && (*options.quality < 1 || *options.quality > 100)) {
    return invalid_argument("quality", fmt::format("{} is outside 1 to 100", *options.quality));
  }
  if (options.lossless && !(*row)->lossless) {
    return invalid_argument("lossless", fmt::format("{} cannot be lossless: PNG and WebP can", format));
  }
  if (options.lossless && options.quality)
    return invalid_argument("quality", "a lossless picture has none: leave it out");
  if (!is_valid_utf8(options.parameters)) return invalid_argument("parameters", "is not valid UTF-8");
  return (*row)->encode(image, options);
}

}  // namespace octavo::image
