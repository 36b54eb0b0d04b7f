#include "weights/export/json_text.h"

#include <fmt/format.h>

#include <boost/json.hpp>

namespace octavo::weights {
namespace {

void put(const boost::json::value& value, const std::string& indent, std::string& text) {
  const std::string inner = indent + "  ";
  std::string separator = "\n";
  if (value.is_object() && !value.get_object().empty()) {
    text += "{";
    for (const auto& member : value.get_object()) {
      text += separator + inner + boost::json::serialize(member.key()) + ": ";
      put(member.value(), inner, text);
      separator = ",\n";
    }
    text += "\n" + indent + "}";
  } else if (value.is_array() && !value.get_array().empty()) {
    text += "[";
    for (const auto& element : value.get_array()) {
      text += separator + inner;
      put(element, inner, text);
      separator = ",\n";
    }
    text += "\n" + indent + "]";
  } else if (value.is_double()) {
    const std::string number = fmt::format("{}", value.get_double());  // the shortest that reads back as the same
    text += number + (number.find_first_not_of("-0123456789") == std::string::npos ? ".0" : "");
  } else {
    text += boost::json::serialize(value);
  }
}

}  // namespace

std::string json_text(const boost::json::object& object) {
  std::string text;
  put(object, "", text);
  return text + "\n";
}

}  // namespace octavo::weights
