#include "api/json_writer.h"

#include <fmt/format.h>

#include <cmath>

#include "base/check.h"
#include "image/infotext.h"

namespace octavo::api {
namespace {

/// The code point at `at`; moves `at` behind it. Requires well-formed UTF-8.
std::uint32_t next_code_point(std::string_view text, std::size_t* at) {
  const auto lead = static_cast<std::uint8_t>(text[(*at)++]);
  const int trail = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : lead >= 0xC0 ? 1 : 0;
  std::uint32_t code = trail == 0 ? lead : lead & (0x3F >> trail);
  for (int i = 0; i < trail && *at < text.size(); ++i)
    code = (code << 6) | (static_cast<std::uint8_t>(text[(*at)++]) & 0x3F);
  return code;
}

void append_escaped(std::string& out, std::string_view text, bool ascii) {
  std::size_t at = 0;
  while (at < text.size()) {
    const char c = text[at];
    const auto byte = static_cast<std::uint8_t>(c);
    if (ascii && byte >= 0x80) {
      const std::uint32_t code = next_code_point(text, &at);
      if (code >= 0x10000) {
        const std::uint32_t rest = code - 0x10000;
        out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
      } else {
        out += fmt::format("\\u{:04x}", code);
      }
      continue;
    }
    ++at;
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      default:
        if (byte < 0x20) {
          out += fmt::format("\\u{:04x}", byte);
        } else {
          out.push_back(c);
        }
    }
  }
}

}  // namespace

void JsonWriter::separate() {
  if (!first_) text_ += style_ == JsonStyle::kPython ? ", " : ",";
  first_ = false;
}

JsonWriter& JsonWriter::open(char bracket) {
  separate();
  text_.push_back(bracket);
  first_ = true;
  return *this;
}

JsonWriter& JsonWriter::shut(char bracket) {
  text_.push_back(bracket);
  first_ = false;
  return *this;
}

JsonWriter& JsonWriter::key(std::string_view name) {
  string(name);
  text_ += style_ == JsonStyle::kPython ? ": " : ":";
  first_ = true;
  return *this;
}

JsonWriter& JsonWriter::string(std::string_view utf8) {
  separate();
  text_.push_back('"');
  append_escaped(text_, utf8, style_ == JsonStyle::kPython);
  text_.push_back('"');
  return *this;
}

JsonWriter& JsonWriter::number(std::int64_t value) { return raw(std::to_string(value)); }

JsonWriter& JsonWriter::real(double value) {
  OCTAVO_CHECK(std::isfinite(value), "{} has no JSON", value);
  return raw(image::python_float(value));
}

JsonWriter& JsonWriter::boolean(bool value) { return raw(value ? "true" : "false"); }

JsonWriter& JsonWriter::null() { return raw("null"); }

JsonWriter& JsonWriter::raw(std::string_view json) {
  separate();
  text_ += json;
  return *this;
}

}  // namespace octavo::api
