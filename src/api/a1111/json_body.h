// A request's JSON object, parsed with bounds on depth and memory.
#pragma once

#include <boost/json/object.hpp>
#include <string_view>
#include <variant>

#include "api/a1111/errors.h"
#include "http/message.h"

namespace octavo::api::a1111 {

/// The object, or the 422 that A1111's framework gives: malformed JSON (with its place), or not an object. Values
/// nested deeper than 32 or needing more than 64 MiB in memory are refused too. Duplicate keys: the last wins.
std::variant<boost::json::object, FieldError> parse_json_object(std::string_view text);

/// As above for a request: a JSON content type or none at all (Dify sends none); any other is "not a dict".
std::variant<boost::json::object, FieldError> parse_json_body(const http::Request& request);

}  // namespace octavo::api::a1111
