// Type coercion as A1111's framework (pydantic 1) does it: clients send "7", 7.0, true and null where an integer is
// meant. Each function returns the value in its target type, or the error to report.
#pragma once

#include <boost/json/value.hpp>
#include <variant>

namespace octavo::api::a1111 {

enum class FieldType { kInteger, kFloat, kBool, kString, kStringList, kList, kObject };

struct CoercionError {
  const char* message;
  const char* type;
};

/// Never called with null (nullability is the field's affair). Integers saturate at the ends of int64; floats are
/// finite.
std::variant<boost::json::value, CoercionError> coerce(const boost::json::value& given, FieldType type);

}  // namespace octavo::api::a1111
