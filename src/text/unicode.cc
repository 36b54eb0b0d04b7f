#include "text/unicode.h"

#include <utf8proc.h>

#include <algorithm>

namespace octavo::text {
namespace {

constexpr char32_t kReplacement = 0xFFFD;
constexpr char32_t kCapitalIWithDot = 0x130;  // the one code point whose lower case is two: i and U+0307

}  // namespace

std::vector<char32_t> decode_utf8(std::string_view text) {
  std::vector<char32_t> points;
  points.reserve(text.size());
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  std::size_t at = 0;
  while (at < text.size()) {
    utf8proc_int32_t point = 0;
    const auto taken =
        utf8proc_iterate(bytes + at, static_cast<utf8proc_ssize_t>(std::min<std::size_t>(4, text.size() - at)), &point);
    if (taken <= 0) {
      points.push_back(kReplacement);
      ++at;
    } else {
      points.push_back(static_cast<char32_t>(point));
      at += static_cast<std::size_t>(taken);
    }
  }
  return points;
}

void append_utf8(std::string& out, char32_t point) {
  utf8proc_uint8_t bytes[4];
  const auto count = utf8proc_encode_char(static_cast<utf8proc_int32_t>(point), bytes);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(count));
}

std::vector<char32_t> to_nfc(const std::vector<char32_t>& points) {
  // Nothing below U+0300 composes or moves.
  if (std::all_of(points.begin(), points.end(), [](char32_t point) { return point < 0x300; })) return points;
  std::vector<utf8proc_int32_t> buffer;
  buffer.reserve(points.size() * 2);
  int last_boundary = 0;
  for (const char32_t point : points) {
    utf8proc_int32_t parts[32];  // no canonical decomposition is longer than four
    const auto count =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(point), parts, 32, UTF8PROC_DECOMPOSE, &last_boundary);
    if (count > 0) buffer.insert(buffer.end(), parts, parts + count);
  }
  // Canonical ordering: combining marks sorted by class, stably, between starters.
  const auto combining_class = [](utf8proc_int32_t point) { return utf8proc_get_property(point)->combining_class; };
  for (std::size_t begin = 0; begin < buffer.size();) {
    if (combining_class(buffer[begin]) == 0) {
      ++begin;
      continue;
    }
    std::size_t end = begin;
    while (end < buffer.size() && combining_class(buffer[end]) != 0) ++end;
    std::stable_sort(buffer.begin() + static_cast<std::ptrdiff_t>(begin),
                     buffer.begin() + static_cast<std::ptrdiff_t>(end),
                     [&](auto a, auto b) { return combining_class(a) < combining_class(b); });
    begin = end;
  }
  const auto count = utf8proc_normalize_utf32(buffer.data(), static_cast<utf8proc_ssize_t>(buffer.size()),
                                              static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  if (count < 0) return points;
  return std::vector<char32_t>(buffer.begin(), buffer.begin() + count);
}

std::vector<char32_t> to_lower(const std::vector<char32_t>& points) {
  std::vector<char32_t> lower;
  lower.reserve(points.size());
  for (const char32_t point : points) {
    if (point == kCapitalIWithDot) {
      lower.push_back(U'i');
      lower.push_back(0x307);
    } else {
      lower.push_back(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(point))));
    }
  }
  return lower;
}

bool is_letter(char32_t point) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(point));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool is_number(char32_t point) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(point));
  return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

bool is_whitespace(char32_t point) {
  return (point >= 0x09 && point <= 0x0D) || point == 0x20 || point == 0x85 || point == 0xA0 || point == 0x1680 ||
         (point >= 0x2000 && point <= 0x200A) || point == 0x2028 || point == 0x2029 || point == 0x202F ||
         point == 0x205F || point == 0x3000;
}

std::vector<TextPiece> split_at_special_tokens(std::string_view text, std::span<const SpecialToken> tokens) {
  std::vector<TextPiece> pieces;
  std::size_t plain_begin = 0, at = 0;
  bool may_start[256] = {};
  for (const SpecialToken& token : tokens) {
    if (!token.content.empty()) may_start[static_cast<unsigned char>(token.content[0])] = true;
  }
  while (at < text.size()) {
    const SpecialToken* best = nullptr;
    if (may_start[static_cast<unsigned char>(text[at])]) {
      for (const SpecialToken& token : tokens) {
        if (token.content.empty() || !text.substr(at).starts_with(token.content)) continue;
        if (best == nullptr || token.content.size() > best->content.size()) best = &token;
      }
    }
    if (best == nullptr) {
      ++at;
      continue;
    }
    if (at > plain_begin) pieces.push_back({text.substr(plain_begin, at - plain_begin), -1});
    pieces.push_back({text.substr(at, best->content.size()), best->id});
    at += best->content.size();
    plain_begin = at;
  }
  if (plain_begin < text.size()) pieces.push_back({text.substr(plain_begin), -1});
  return pieces;
}

}  // namespace octavo::text
