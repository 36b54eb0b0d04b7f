#include "image/latin1.h"

#include <cstdint>

namespace octavo::image {

std::optional<std::string> latin1_from_utf8(std::string_view text) {
  std::string latin1;
  latin1.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto lead = static_cast<std::uint8_t>(text[i]);
    if (lead < 0x80) {
      latin1.push_back(text[i]);
    } else if (lead <= 0xC3 && i + 1 < text.size()) {  // C2 and C3 lead U+0080 to U+00FF
      const auto trail = static_cast<std::uint8_t>(text[++i]);
      latin1.push_back(static_cast<char>(((lead & 0x03) << 6) | (trail & 0x3F)));
    } else {
      return std::nullopt;
    }
  }
  return latin1;
}

std::string utf8_from_latin1(std::string_view text) {
  std::string utf8;
  utf8.reserve(text.size());
  for (const char character : text) {
    const auto code = static_cast<std::uint8_t>(character);
    if (code < 0x80) {
      utf8.push_back(character);
    } else {
      utf8.push_back(static_cast<char>(0xC0 | (code >> 6)));
      utf8.push_back(static_cast<char>(0x80 | (code & 0x3F)));
    }
  }
  return utf8;
}

}  // namespace octavo::image
