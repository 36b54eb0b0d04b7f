// The chunks of a PNG that libpng is not asked for: texts and EXIF. Reading them here keeps memory bounded (a
// compressed text of a few kilobytes may hold megabytes, and a file any number of them) and needs no pixel to be
// decoded.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace octavo::image {

/// A text chunk: keyword 1 to 79 printable Latin-1 characters; both are UTF-8 here.
struct PngText {
  std::string keyword;
  std::string text;
};

/// tEXt, zTXt and iTXt in file order, up to 64 of them and 8 MiB in all. A chunk that is damaged, or over those limits,
/// is left out: a broken comment does not spoil the picture. Bytes that are no PNG give none.
std::vector<PngText> read_png_texts(std::span<const std::uint8_t> bytes);

/// The content of eXIf, part of `bytes`; empty when there is none.
std::span<const std::uint8_t> find_png_exif(std::span<const std::uint8_t> bytes);

}  // namespace octavo::image
