#include "image/exif.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string_view>

#include "base/utf8.h"

namespace octavo::image {
namespace {

constexpr std::uint16_t kOrientation = 0x0112;
constexpr std::uint16_t kExifFolder = 0x8769;
constexpr std::uint16_t kUserComment = 0x9286;
constexpr std::uint16_t kByte = 1, kShort = 3, kLong = 4, kUndefined = 7;  // field types

struct Field {
  std::uint16_t type = 0;
  std::uint32_t count = 0;
  std::size_t value_at = 0;  // of the four bytes that hold the value or its offset
};

/// Numbers of a TIFF in its byte order; nothing beyond its end.
class Tiff {
 public:
  Tiff(std::span<const std::uint8_t> bytes, bool big_endian) : bytes_(bytes), big_endian_(big_endian) {}

  std::optional<std::uint16_t> u16(std::size_t at) const {
    if (bytes_.size() < 2 || at > bytes_.size() - 2) return std::nullopt;
    const unsigned first = bytes_[at], second = bytes_[at + 1];
    return static_cast<std::uint16_t>(big_endian_ ? first << 8 | second : second << 8 | first);
  }

  std::optional<std::uint32_t> u32(std::size_t at) const {
    const auto first = u16(at), second = u16(at + 2);
    if (!first || !second) return std::nullopt;
    return big_endian_ ? std::uint32_t{*first} << 16 | *second : std::uint32_t{*second} << 16 | *first;
  }

  /// The field `tag` of the folder that begins at `folder`.
  std::optional<Field> find(std::size_t folder, std::uint16_t tag) const {
    const auto count = u16(folder);
    if (!count) return std::nullopt;
    for (std::size_t i = 0; i < *count; ++i) {
      const std::size_t at = folder + 2 + 12 * i;
      const auto found = u16(at), type = u16(at + 2);
      const auto length = u32(at + 4);
      if (!found || !type || !length || !u32(at + 8)) return std::nullopt;
      if (*found == tag) return Field{*type, *length, at + 8};
    }
    return std::nullopt;
  }

  /// The bytes of a kByte or kUndefined field: inside the field when they fit, else where it points.
  std::span<const std::uint8_t> bytes_of(const Field& field) const {
    const std::size_t at = field.count <= 4 ? field.value_at : *u32(field.value_at);
    if (at > bytes_.size() || field.count > bytes_.size() - at) return {};
    return bytes_.subspan(at, field.count);
  }

 private:
  std::span<const std::uint8_t> bytes_;
  bool big_endian_;
};

void append_utf8(std::string& out, std::uint32_t code) {
  const auto trail = [code](int shift) { return static_cast<char>(0x80 | ((code >> shift) & 0x3F)); };
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | (code >> 6));
    out += trail(0);
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | (code >> 12));
    out += trail(6);
    out += trail(0);
  } else {
    out += static_cast<char>(0xF0 | (code >> 18));
    out += trail(12);
    out += trail(6);
    out += trail(0);
  }
}

/// A mark at the beginning decides. Else the text has the order of the file, but for one case: AUTOMATIC1111 and others
/// write big-endian whatever the file's order, so in a little-endian file the side decides on which the zero bytes of
/// Latin letters lie.
bool is_big_endian(std::span<const std::uint8_t> text, bool file_is_big_endian) {
  if (text[0] == 0xFE && text[1] == 0xFF) return true;
  if (text[0] == 0xFF && text[1] == 0xFE) return false;
  if (file_is_big_endian) return true;
  std::size_t high_first = 0, low_first = 0;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
    if (text[i] == 0) ++high_first;
    if (text[i + 1] == 0) ++low_first;
  }
  return high_first > low_first;
}

std::string utf8_from_utf16(std::span<const std::uint8_t> text, bool file_is_big_endian) {
  std::string out;
  if (text.size() < 2) return out;
  const std::size_t high = is_big_endian(text, file_is_big_endian) ? 0 : 1;
  const auto unit = [&](std::size_t i) { return static_cast<std::uint32_t>(text[i + high] << 8 | text[i + 1 - high]); };
  for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
    std::uint32_t code = unit(i);
    if (i == 0 && code == 0xFEFF) continue;
    if (code >= 0xD800 && code < 0xDC00 && i + 3 < text.size() && unit(i + 2) >= 0xDC00 && unit(i + 2) < 0xE000) {
      code = 0x10000 + ((code - 0xD800) << 10) + (unit(i + 2) - 0xDC00);
      i += 2;
    } else if (code >= 0xD800 && code < 0xE000) {
      code = 0xFFFD;  // half of a pair
    }
    append_utf8(out, code);
  }
  return out;
}

/// The code point that begins at `at`, which moves behind it. Requires well-formed UTF-8.
std::uint32_t next_code(std::string_view text, std::size_t& at) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<std::uint8_t>(text[i])); };
  const std::uint32_t lead = byte(at++);
  if (lead < 0x80) return lead;
  const int trail = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
  std::uint32_t code = lead & (0x3Fu >> trail);
  for (int i = 0; i < trail; ++i) code = code << 6 | (byte(at++) & 0x3F);
  return code;
}

void append_u16(std::vector<std::uint8_t>& out, std::uint32_t value) {
  out.push_back(static_cast<std::uint8_t>(value >> 8));
  out.push_back(static_cast<std::uint8_t>(value));
}

void append_u32(std::vector<std::uint8_t>& out, std::size_t value) {
  append_u16(out, static_cast<std::uint32_t>(value >> 16));
  append_u16(out, static_cast<std::uint32_t>(value));
}

/// A folder of one field, with no folder after it.
void append_folder(std::vector<std::uint8_t>& out, std::uint16_t tag, std::uint16_t type, std::size_t count,
                   std::size_t value) {
  append_u16(out, 1);
  append_u16(out, tag);
  append_u16(out, type);
  append_u32(out, count);
  append_u32(out, value);
  append_u32(out, 0);
}

/// Eight bytes name the code, the text follows.
std::string comment_text(std::span<const std::uint8_t> field, bool file_is_big_endian) {
  constexpr std::size_t kCodeBytes = 8;
  if (field.size() < kCodeBytes) return {};
  const std::string_view code(reinterpret_cast<const char*>(field.data()), kCodeBytes);
  const auto content = field.subspan(kCodeBytes);
  std::string text;
  if (code == std::string_view("UNICODE\0", kCodeBytes)) {
    text = utf8_from_utf16(content, file_is_big_endian);
  } else if (code == std::string_view("ASCII\0\0\0", kCodeBytes) ||
             code == std::string_view("\0\0\0\0\0\0\0\0", kCodeBytes)) {
    text.assign(content.begin(), content.end());
    if (!is_valid_utf8(text)) return {};
  }
  text.resize(std::min(text.size(), text.find('\0')));  // some writers pad with zeros
  return text;
}

}  // namespace

Exif parse_exif(std::span<const std::uint8_t> tiff) {
  Exif exif;
  constexpr std::size_t kHeaderBytes = 8;
  if (tiff.size() < kHeaderBytes || tiff[0] != tiff[1] || (tiff[0] != 'I' && tiff[0] != 'M')) return exif;
  const Tiff reader(tiff, tiff[0] == 'M');
  if (reader.u16(2) != 42) return exif;
  const std::size_t root = *reader.u32(4);
  if (const auto field = reader.find(root, kOrientation); field && field->type == kShort && field->count == 1) {
    const int orientation = *reader.u16(field->value_at);
    if (orientation >= 1 && orientation <= 8) exif.orientation = orientation;
  }
  const auto folder = reader.find(root, kExifFolder);
  if (!folder || folder->type != kLong || folder->count != 1) return exif;
  const auto comment = reader.find(*reader.u32(folder->value_at), kUserComment);
  // The standard says kUndefined; Pillow writes kByte.
  if (comment && (comment->type == kUndefined || comment->type == kByte)) {
    exif.user_comment = comment_text(reader.bytes_of(*comment), tiff[0] == 'M');
  }
  return exif;
}

std::vector<std::uint8_t> write_exif(std::string_view user_comment) {
  constexpr std::string_view kCode("UNICODE\0", 8);
  constexpr std::size_t kHeaderBytes = 8, kFolderBytes = 18;
  std::vector<std::uint8_t> text(kCode.begin(), kCode.end());
  for (std::size_t at = 0; at < user_comment.size();) {
    const std::uint32_t code = next_code(user_comment, at);
    if (code < 0x10000) {
      append_u16(text, code);
    } else {
      append_u16(text, 0xD800 + ((code - 0x10000) >> 10));
      append_u16(text, 0xDC00 + ((code - 0x10000) & 0x3FF));
    }
  }
  std::vector<std::uint8_t> tiff = {'M', 'M', 0, 42};
  append_u32(tiff, kHeaderBytes);
  append_folder(tiff, kExifFolder, kLong, 1, kHeaderBytes + kFolderBytes);
  append_folder(tiff, kUserComment, kUndefined, text.size(), kHeaderBytes + 2 * kFolderBytes);
  tiff.insert(tiff.end(), text.begin(), text.end());
  return tiff;
}

}  // namespace octavo::image
