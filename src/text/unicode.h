// Unicode as the tokenizers need it (utf8proc's tables), and the splitting of text at special tokens.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace octavo::text {

/// Code points of `text`; each byte that does not belong to well-formed UTF-8 becomes U+FFFD.
std::vector<char32_t> decode_utf8(std::string_view text);
void append_utf8(std::string& out, char32_t point);

/// Normal form C.
std::vector<char32_t> to_nfc(const std::vector<char32_t>& points);
/// Full lower-casing of each code point on its own (no final-sigma rule), as Rust's char::to_lowercase.
std::vector<char32_t> to_lower(const std::vector<char32_t>& points);

bool is_letter(char32_t point);      // general category L*
bool is_number(char32_t point);      // general category N*
bool is_whitespace(char32_t point);  // property White_Space

/// A literal that stands for an id of its own wherever it occurs in a text.
struct SpecialToken {
  std::string content;
  std::int32_t id = 0;
};

/// A piece of text, or a special token when id >= 0.
struct TextPiece {
  std::string_view text;
  std::int32_t id = -1;
};

/// Leftmost, then longest match, like the added tokens of the tokenizers library. Views point into `text`.
std::vector<TextPiece> split_at_special_tokens(std::string_view text, std::span<const SpecialToken> tokens);

}  // namespace octavo::text
