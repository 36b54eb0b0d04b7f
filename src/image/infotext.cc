#include "image/infotext.h"

#include <fmt/format.h>

#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <optional>

namespace octavo::image {
namespace {

constexpr std::string_view kNegativePrefix = "Negative prompt:";
constexpr std::size_t kMinItems = 3;  // fewer, and the last line is taken for prompt text

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

std::string_view strip(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

bool is_word(char c) {
  const auto byte = static_cast<std::uint8_t>(c);
  return std::isalnum(byte) != 0 || c == '_' || byte >= 0x80;  // any letter beyond ASCII counts as one
}

void append_utf8(std::string& out, std::uint32_t code) {
  if (code < 0x80) {
    out.push_back(static_cast<char>(code));
  } else if (code < 0x800) {
    out.push_back(static_cast<char>(0xC0 | (code >> 6)));
    out.push_back(static_cast<char>(0x80 | (code & 0x3F)));
  } else {
    out.push_back(static_cast<char>(0xE0 | (code >> 12)));
    out.push_back(static_cast<char>(0x80 | ((code >> 6) & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (code & 0x3F)));
  }
}

/// Undoes quote_infotext_value; nothing when `text` is not one well-formed JSON string of ours.
std::optional<std::string> unquote(std::string_view text) {
  std::string value;
  for (std::size_t i = 1; i + 1 < text.size(); ++i) {
    if (text[i] != '\\') {
      value.push_back(text[i]);
      continue;
    }
    switch (text[++i]) {
      case '"':
        value.push_back('"');
        break;
      case '\\':
        value.push_back('\\');
        break;
      case '/':
        value.push_back('/');
        break;
      case 'n':
        value.push_back('\n');
        break;
      case 'r':
        value.push_back('\r');
        break;
      case 't':
        value.push_back('\t');
        break;
      case 'b':
        value.push_back('\b');
        break;
      case 'f':
        value.push_back('\f');
        break;
      case 'u': {
        std::uint32_t code = 0;
        if (i + 4 >= text.size() - 1) return std::nullopt;
        const char* first = text.data() + i + 1;
        const auto [end, error] = std::from_chars(first, first + 4, code, 16);
        if (error != std::errc() || end != first + 4 || (code >= 0xD800 && code < 0xE000)) return std::nullopt;
        append_utf8(value, code);
        i += 4;
        break;
      }
      default:
        return std::nullopt;
    }
  }
  return value;
}

/// The end of a quoted string that begins at `at`: one past its closing quote, or npos.
std::size_t end_of_quoted(std::string_view line, std::size_t at) {
  for (std::size_t i = at + 1; i < line.size(); ++i) {
    if (line[i] == '\\') {
      ++i;
    } else if (line[i] == '"') {
      return i + 1;
    }
  }
  return std::string_view::npos;
}

std::vector<InfotextItem> parse_items(std::string_view line) {
  std::vector<InfotextItem> items;
  std::size_t at = 0;
  while (at < line.size()) {
    // A key starts at a word character and runs over words, spaces, '-' and '/' to a colon.
    while (at < line.size() && !is_word(line[at])) ++at;
    std::size_t end = at;
    while (end < line.size() && (is_word(line[end]) || line[end] == ' ' || line[end] == '-' || line[end] == '/')) ++end;
    if (end >= line.size()) break;
    if (line[end] != ':' || end - at < 2) {
      at = end + 1;
      continue;
    }
    const std::string key(line.substr(at, end - at));
    std::size_t from = end + 1;
    while (from < line.size() && line[from] == ' ') ++from;
    std::size_t to = std::string_view::npos;
    std::optional<std::string> value;
    if (from < line.size() && line[from] == '"') {
      to = end_of_quoted(line, from);
      if (to != std::string_view::npos) value = unquote(line.substr(from, to - from));
    }
    if (!value) {
      to = std::min(line.find(',', from), line.size());
      value = std::string(strip(line.substr(from, to - from)));
    }
    items.push_back({key, std::move(*value)});
    at = to;
  }
  return items;
}

}  // namespace

std::string quote_infotext_value(std::string_view value) {
  if (value.find_first_of(",:\n") == std::string_view::npos) return std::string(value);
  std::string quoted = "\"";
  for (const char c : value) {
    switch (c) {
      case '"':
        quoted += "\\\"";
        break;
      case '\\':
        quoted += "\\\\";
        break;
      case '\n':
        quoted += "\\n";
        break;
      case '\r':
        quoted += "\\r";
        break;
      case '\t':
        quoted += "\\t";
        break;
      case '\b':
        quoted += "\\b";
        break;
      case '\f':
        quoted += "\\f";
        break;
      default:
        if (static_cast<std::uint8_t>(c) < 0x20) {
          quoted += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
        } else {
          quoted.push_back(c);
        }
    }
  }
  quoted.push_back('"');
  return quoted;
}

std::string python_float(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  // fmt prints the shortest digits that read back, as Python does, and switches to exponents at the same places.
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string format_infotext(const Infotext& infotext) {
  std::string text = infotext.prompt;
  if (!infotext.negative_prompt.empty()) {
    text += "\n";
    text += kNegativePrefix;
    text += " " + infotext.negative_prompt;
  }
  text += "\n";
  for (std::size_t i = 0; i < infotext.items.size(); ++i) {
    const InfotextItem& item = infotext.items[i];
    if (i > 0) text += ", ";
    text += item.key == item.value ? item.key : item.key + ": " + quote_infotext_value(item.value);
  }
  return std::string(strip(text));
}

Infotext parse_infotext(std::string_view text) {
  Infotext infotext;
  text = strip(text);
  const std::size_t last_break = text.rfind('\n');
  const std::string_view last_line = last_break == std::string_view::npos ? text : text.substr(last_break + 1);
  std::vector<InfotextItem> items = parse_items(last_line);
  std::string_view rest = text;
  if (items.size() >= kMinItems) {
    infotext.items = std::move(items);
    rest = last_break == std::string_view::npos ? std::string_view() : text.substr(0, last_break);
  }
  bool negative = false;
  while (!rest.empty()) {
    const std::size_t end = rest.find('\n');
    std::string_view line = strip(rest.substr(0, end));
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
    if (!negative && line.starts_with(kNegativePrefix)) {
      negative = true;
      line = strip(line.substr(kNegativePrefix.size()));
    }
    std::string& into = negative ? infotext.negative_prompt : infotext.prompt;
    if (!into.empty()) into += "\n";
    into += line;
  }
  return infotext;
}

}  // namespace octavo::image
