#include "api/a1111/coercion.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "image/infotext.h"

namespace octavo::api::a1111 {
namespace {

namespace json = boost::json;
using Coerced = std::variant<json::value, CoercionError>;

constexpr CoercionError kNotInteger{"value is not a valid integer", "type_error.integer"};
constexpr CoercionError kNotFloat{"value is not a valid float", "type_error.float"};
constexpr CoercionError kNotFinite{"ensure this value is a finite number", "value_error.number.not_finite_number"};
constexpr CoercionError kNotBool{"value could not be parsed to a boolean", "type_error.bool"};
constexpr CoercionError kNotString{"str type expected", "type_error.str"};
constexpr CoercionError kNotList{"value is not a valid list", "type_error.list"};
constexpr CoercionError kNotObject{"value is not a valid dict", "type_error.dict"};
constexpr CoercionError kNull{"none is not an allowed value", "type_error.none.not_allowed"};

constexpr std::int64_t kIntegerMax = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kIntegerMin = std::numeric_limits<std::int64_t>::min();

std::string_view view(const json::string& text) { return {text.data(), text.size()}; }

std::string_view strip(std::string_view text) {
  const auto is_space = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

/// Python allows single underscores between digits. Nothing when they stand elsewhere.
std::optional<std::string> without_underscores(std::string_view text) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  std::string digits;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      digits.push_back(text[i]);
    } else if (i == 0 || i + 1 == text.size() || !is_digit(text[i - 1]) || !is_digit(text[i + 1])) {
      return std::nullopt;
    }
  }
  return digits;
}

std::int64_t truncate(double value) {
  if (value >= 9223372036854775808.0) return kIntegerMax;
  if (value < -9223372036854775808.0) return kIntegerMin;
  return static_cast<std::int64_t>(value);
}

Coerced integer_from_text(std::string_view given) {
  std::optional<std::string> text = without_underscores(strip(given));
  if (!text || text->empty()) return kNotInteger;
  std::string_view digits = *text;
  const bool negative = digits.front() == '-';
  if (negative || digits.front() == '+') digits.remove_prefix(1);
  if (digits.empty() || !std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; })) {
    return kNotInteger;
  }
  std::uint64_t magnitude = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), magnitude);
  if (error == std::errc::result_out_of_range || magnitude > static_cast<std::uint64_t>(kIntegerMax)) {
    return json::value(negative ? kIntegerMin : kIntegerMax);
  }
  const auto value = static_cast<std::int64_t>(magnitude);
  return json::value(negative ? -value : value);
}

Coerced to_integer(const json::value& given) {
  if (given.is_bool()) return json::value(std::int64_t{given.get_bool() ? 1 : 0});
  if (given.is_int64()) return given;
  if (given.is_uint64()) return json::value(kIntegerMax);  // the parser uses it only beyond int64
  if (given.is_double()) {
    if (!std::isfinite(given.get_double())) return kNotInteger;
    return json::value(truncate(given.get_double()));
  }
  if (given.is_string()) return integer_from_text(view(given.get_string()));
  return kNotInteger;
}

Coerced float_from_text(std::string_view given) {
  std::optional<std::string> text = without_underscores(strip(given));
  if (!text || text->empty()) return kNotFloat;
  std::string_view digits = *text;
  if (digits.front() == '+') {
    digits.remove_prefix(1);
    if (digits.starts_with('-')) return kNotFloat;
  }
  double value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (end != digits.data() + digits.size() || error == std::errc::invalid_argument) return kNotFloat;
  if (error == std::errc::result_out_of_range || !std::isfinite(value)) return kNotFinite;
  return json::value(value);
}

Coerced to_float(const json::value& given) {
  if (given.is_bool()) return json::value(given.get_bool() ? 1.0 : 0.0);
  if (given.is_int64()) return json::value(static_cast<double>(given.get_int64()));
  if (given.is_uint64()) return json::value(static_cast<double>(given.get_uint64()));
  if (given.is_double()) {
    if (!std::isfinite(given.get_double())) return kNotFinite;
    return given;
  }
  if (given.is_string()) return float_from_text(view(given.get_string()));
  return kNotFloat;
}

Coerced to_bool(const json::value& given) {
  if (given.is_bool()) return given;
  if (given.is_int64() && (given.get_int64() == 0 || given.get_int64() == 1))
    return json::value(given.get_int64() == 1);
  if (given.is_double() && (given.get_double() == 0 || given.get_double() == 1)) {
    return json::value(given.get_double() == 1);
  }
  if (!given.is_string()) return kNotBool;
  std::string lower;
  for (const char c : view(given.get_string()))
    lower.push_back(c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c);
  for (const std::string_view word : {"0", "off", "f", "false", "n", "no"}) {
    if (lower == word) return json::value(false);
  }
  for (const std::string_view word : {"1", "on", "t", "true", "y", "yes"}) {
    if (lower == word) return json::value(true);
  }
  return kNotBool;
}

Coerced to_string(const json::value& given) {
  if (given.is_string()) return given;
  if (given.is_bool()) return json::value(given.get_bool() ? "True" : "False");
  if (given.is_int64()) return json::value(std::to_string(given.get_int64()));
  if (given.is_uint64()) return json::value(std::to_string(given.get_uint64()));
  if (given.is_double()) return json::value(image::python_float(given.get_double()));
  return kNotString;
}

Coerced to_string_list(const json::value& given) {
  if (!given.is_array()) return kNotList;
  json::array list;
  for (const json::value& item : given.get_array()) {
    if (item.is_null()) return kNull;
    Coerced text = to_string(item);
    if (std::holds_alternative<CoercionError>(text)) return text;
    list.push_back(std::get<json::value>(std::move(text)));
  }
  return json::value(std::move(list));
}

Coerced to_object(const json::value& given) {
  if (given.is_object()) return given;
  if (given.is_array() && given.get_array().empty()) return json::value(json::object());  // PHP's empty map
  return kNotObject;
}

}  // namespace

Coerced coerce(const json::value& given, FieldType type) {
  switch (type) {
    case FieldType::kInteger:
      return to_integer(given);
    case FieldType::kFloat:
      return to_float(given);
    case FieldType::kBool:
      return to_bool(given);
    case FieldType::kString:
      return to_string(given);
    case FieldType::kStringList:
      return to_string_list(given);
    case FieldType::kList:
      return given.is_array() ? Coerced(given) : Coerced(kNotList);
    case FieldType::kObject:
      return to_object(given);
  }
  return kNotObject;
}

}  // namespace octavo::api::a1111
