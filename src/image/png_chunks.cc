#include "image/png_chunks.h"

#include <zlib.h>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string_view>

#include "base/utf8.h"
#include "image/latin1.h"

namespace octavo::image {
namespace {

constexpr std::size_t kSignatureBytes = 8;
constexpr std::size_t kMostTexts = 64;
constexpr std::size_t kMostTextBytes = std::size_t{8} << 20;

std::uint32_t u32(std::span<const std::uint8_t> bytes, std::size_t at) {
  return std::uint32_t{bytes[at]} << 24 | std::uint32_t{bytes[at + 1]} << 16 | std::uint32_t{bytes[at + 2]} << 8 |
         bytes[at + 3];
}

struct Chunk {
  std::string_view type;  // four letters
  std::span<const std::uint8_t> content;
  bool intact = false;  // its checksum holds
};

/// Length, type, content and CRC of each chunk, as far as whole chunks go.
class Chunks {
 public:
  explicit Chunks(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}

  std::optional<Chunk> next() {
    constexpr std::size_t kFrameBytes = 12;
    if (at_ > bytes_.size() || bytes_.size() - at_ < kFrameBytes) return std::nullopt;
    const std::size_t length = u32(bytes_, at_);
    if (length > bytes_.size() - at_ - kFrameBytes) return std::nullopt;
    const std::uint8_t* type = bytes_.data() + at_ + 4;
    const auto checksum = crc32_z(0, type, length + 4);
    const Chunk chunk{{reinterpret_cast<const char*>(type), 4},
                      bytes_.subspan(at_ + 8, length),
                      checksum == u32(bytes_, at_ + 8 + length)};
    at_ += kFrameBytes + length;
    return chunk;
  }

 private:
  std::span<const std::uint8_t> bytes_;
  std::size_t at_ = kSignatureBytes;
};

/// Nothing when damaged or of more than `most` bytes.
std::optional<std::string> inflate_text(std::string_view packed, std::size_t most) {
  z_stream stream{};
  if (inflateInit(&stream) != Z_OK) return std::nullopt;
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));  // zlib does not write to it
  stream.avail_in = static_cast<uInt>(packed.size());
  std::string text;
  int state = Z_OK;
  while (state == Z_OK && text.size() <= most) {
    char part[4096];
    stream.next_out = reinterpret_cast<Bytef*>(part);
    stream.avail_out = sizeof(part);
    state = inflate(&stream, Z_NO_FLUSH);
    text.append(part, sizeof(part) - stream.avail_out);
  }
  inflateEnd(&stream);
  if (state != Z_STREAM_END || text.size() > most) return std::nullopt;
  return text;
}

/// Up to the next zero byte, which is taken too; nothing when there is none.
std::optional<std::string_view> take_word(std::string_view& rest) {
  const std::size_t end = rest.find('\0');
  if (end == std::string_view::npos) return std::nullopt;
  const std::string_view word = rest.substr(0, end);
  rest.remove_prefix(end + 1);
  return word;
}

std::optional<PngText> read_text(const Chunk& chunk, std::size_t most) {
  std::string_view rest(reinterpret_cast<const char*>(chunk.content.data()), chunk.content.size());
  const auto keyword = take_word(rest);
  if (!keyword || keyword->empty() || keyword->size() > 79) return std::nullopt;
  bool compressed = chunk.type == "zTXt";
  if (compressed) {
    if (rest.empty() || rest[0] != 0) return std::nullopt;  // the one method there is
    rest.remove_prefix(1);
  } else if (chunk.type == "iTXt") {
    if (rest.size() < 2 || rest[1] != 0) return std::nullopt;
    compressed = rest[0] != 0;
    rest.remove_prefix(2);
    if (!take_word(rest) || !take_word(rest)) return std::nullopt;  // language, translated keyword
  }
  std::optional<std::string> text(rest);
  if (compressed) text = inflate_text(rest, most);
  if (!text || text->size() > most) return std::nullopt;
  if (chunk.type != "iTXt") {
    text = utf8_from_latin1(*text);
  } else if (!is_valid_utf8(*text)) {
    return std::nullopt;
  }
  return PngText{utf8_from_latin1(*keyword), std::move(*text)};
}

}  // namespace

std::vector<PngText> read_png_texts(std::span<const std::uint8_t> bytes) {
  std::vector<PngText> texts;
  std::size_t left = kMostTextBytes;
  Chunks chunks(bytes);
  while (const auto chunk = chunks.next()) {
    if (texts.size() == kMostTexts) break;
    if (!chunk->intact || (chunk->type != "tEXt" && chunk->type != "zTXt" && chunk->type != "iTXt")) continue;
    std::optional<PngText> text = read_text(*chunk, left);
    if (!text) continue;
    left -= std::min(left, text->text.size());
    texts.push_back(std::move(*text));
  }
  return texts;
}

std::span<const std::uint8_t> find_png_exif(std::span<const std::uint8_t> bytes) {
  Chunks chunks(bytes);
  while (const auto chunk = chunks.next()) {
    if (chunk->intact && chunk->type == "eXIf") return chunk->content;
  }
  return {};
}

}  // namespace octavo::image
