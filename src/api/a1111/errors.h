// A1111's two error shapes: the framework's {"detail": ...} and the application's {"error","detail","body","errors"}.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "http/message.h"

namespace octavo::api::a1111 {

/// One entry of a 422: pydantic's words, so that clients see a shape they know.
struct FieldError {
  std::vector<std::string> location;  // {"body", "width"}
  std::string message;
  std::string type;                   // "value_error.number.not_le"
  std::string context;                // JSON object, or ""
  std::optional<std::size_t> offset;  // in malformed JSON: the last item of the location
};

/// 422 {"detail":[{"loc","msg","type","ctx"}]}.
http::Response validation_response(const std::vector<FieldError>& errors);

/// {"error":name,"detail":detail,"body":"","errors":errors}.
http::Response application_error(int status, std::string_view name, std::string_view detail, std::string_view errors);

/// For http::ServerOptions::render_error: 404 and 405 in the framework's shape, the rest in the application's.
void render_error(const http::Request& request, http::Response& response);

}  // namespace octavo::api::a1111
