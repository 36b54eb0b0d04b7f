// JsonWriter: JSON text in the order of the calls. Two styles: compact UTF-8, and Python's json.dumps (ASCII with
// escapes, ", " and ": "), which A1111's `info` string uses.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace octavo::api {

enum class JsonStyle { kCompact, kPython };

class JsonWriter {
 public:
  explicit JsonWriter(JsonStyle style = JsonStyle::kCompact) : style_(style) {}

  JsonWriter& begin_object() { return open('{'); }
  JsonWriter& end_object() { return shut('}'); }
  JsonWriter& begin_array() { return open('['); }
  JsonWriter& end_array() { return shut(']'); }
  JsonWriter& key(std::string_view name);
  /// `utf8` must be well-formed.
  JsonWriter& string(std::string_view utf8);
  JsonWriter& number(std::int64_t value);
  /// Python's digits ("7.0"). Requires a finite value.
  JsonWriter& real(double value);
  JsonWriter& boolean(bool value);
  JsonWriter& null();
  /// JSON text taken as it is.
  JsonWriter& raw(std::string_view json);
  void reserve(std::size_t bytes) { text_.reserve(bytes); }
  std::string take() { return std::move(text_); }

 private:
  JsonWriter& open(char bracket);
  JsonWriter& shut(char bracket);
  void separate();

  JsonStyle style_;
  std::string text_;
  bool first_ = true;  // nothing yet in the innermost bracket, or a key was just written
};

}  // namespace octavo::api
