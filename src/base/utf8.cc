#include "base/utf8.h"

#include <cstddef>
#include <cstdint>

namespace octavo {

bool is_valid_utf8(std::string_view text) {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(text.data());
  std::size_t at = 0;
  while (at < text.size()) {
    const std::uint8_t lead = bytes[at];
    if (lead < 0x80) {
      ++at;
      continue;
    }
    std::size_t trail = 0;
    std::uint8_t first_low = 0x80, first_high = 0xBF;  // range of the second byte
    if (lead >= 0xC2 && lead <= 0xDF) {
      trail = 1;
    } else if (lead >= 0xE0 && lead <= 0xEF) {
      trail = 2;
      if (lead == 0xE0) first_low = 0xA0;
      if (lead == 0xED) first_high = 0x9F;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
      trail = 3;
      if (lead == 0xF0) first_low = 0x90;
      if (lead == 0xF4) first_high = 0x8F;
    } else {
      return false;
    }
    if (text.size() - at <= trail) return false;
    if (bytes[at + 1] < first_low || bytes[at + 1] > first_high) return false;
    for (std::size_t i = 2; i <= trail; ++i) {
      if ((bytes[at + i] & 0xC0) != 0x80) return false;
    }
    at += trail + 1;
  }
  return true;
}

std::string printable(std::string_view text) {
  std::string out(text);
  if (is_valid_utf8(text)) return out;
  for (char& byte : out) {
    if (static_cast<unsigned char>(byte) >= 0x80) byte = '?';
  }
  return out;
}

}  // namespace octavo
