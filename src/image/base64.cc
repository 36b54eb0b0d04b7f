#include "image/base64.h"

#include <array>

namespace octavo::image {
namespace {

constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr std::uint8_t kNoDigit = 0xFF;

constexpr std::array<std::uint8_t, 256> make_digits() {
  std::array<std::uint8_t, 256> digits{};
  digits.fill(kNoDigit);
  for (std::size_t i = 0; i < kAlphabet.size(); ++i) {
    digits[static_cast<std::uint8_t>(kAlphabet[i])] = static_cast<std::uint8_t>(i);
  }
  return digits;
}

constexpr std::array<std::uint8_t, 256> kDigits = make_digits();

}  // namespace

std::string base64_encode(std::span<const std::uint8_t> bytes) {
  std::string text((bytes.size() + 2) / 3 * 4, '=');
  std::size_t out = 0;
  std::size_t at = 0;
  for (; at + 3 <= bytes.size(); at += 3) {
    const std::uint32_t group = (std::uint32_t{bytes[at]} << 16) | (std::uint32_t{bytes[at + 1]} << 8) | bytes[at + 2];
    text[out++] = kAlphabet[group >> 18];
    text[out++] = kAlphabet[(group >> 12) & 63];
    text[out++] = kAlphabet[(group >> 6) & 63];
    text[out++] = kAlphabet[group & 63];
  }
  const std::size_t rest = bytes.size() - at;
  if (rest > 0) {
    const std::uint32_t group =
        (std::uint32_t{bytes[at]} << 16) | (rest == 2 ? std::uint32_t{bytes[at + 1]} << 8 : std::uint32_t{0});
    text[out++] = kAlphabet[group >> 18];
    text[out++] = kAlphabet[(group >> 12) & 63];
    if (rest == 2) text[out] = kAlphabet[(group >> 6) & 63];
  }
  return text;
}

Result<std::vector<std::uint8_t>> base64_decode(std::string_view text) {
  if (text.size() % 4 != 0) return invalid_argument("base64", "length is not a multiple of 4");
  std::size_t padding = 0;
  while (padding < 2 && padding < text.size() && text[text.size() - 1 - padding] == '=') ++padding;
  std::vector<std::uint8_t> bytes;
  bytes.reserve(text.size() / 4 * 3);
  const std::size_t digits = text.size() - padding;
  std::uint32_t group = 0;
  for (std::size_t i = 0; i < digits; ++i) {
    const std::uint8_t digit = kDigits[static_cast<std::uint8_t>(text[i])];
    if (digit == kNoDigit) return invalid_argument("base64", fmt::format("unexpected character at offset {}", i));
    group = (group << 6) | digit;
    if (i % 4 == 3) {
      bytes.push_back(static_cast<std::uint8_t>(group >> 16));
      bytes.push_back(static_cast<std::uint8_t>(group >> 8));
      bytes.push_back(static_cast<std::uint8_t>(group));
      group = 0;
    }
  }
  const std::uint32_t unused = padding == 2 ? group & 0xF : padding == 1 ? group & 0x3 : 0;
  if (unused != 0) return invalid_argument("base64", "bits after the last byte are not zero");
  if (padding == 2) bytes.push_back(static_cast<std::uint8_t>(group >> 4));
  if (padding == 1) {
    bytes.push_back(static_cast<std::uint8_t>(group >> 10));
    bytes.push_back(static_cast<std::uint8_t>(group >> 2));
  }
  return bytes;
}

}  // namespace octavo::image
