#include "api/a1111/errors.h"

#include "api/json_writer.h"

namespace octavo::api::a1111 {

http::Response validation_response(const std::vector<FieldError>& errors) {
  JsonWriter json;
  json.begin_object().key("detail").begin_array();
  for (const FieldError& error : errors) {
    json.begin_object().key("loc").begin_array();
    for (const std::string& part : error.location) json.string(part);
    if (error.offset) json.number(static_cast<std::int64_t>(*error.offset));
    json.end_array().key("msg").string(error.message).key("type").string(error.type);
    if (!error.context.empty()) json.key("ctx").raw(error.context);
    json.end_object();
  }
  http::Response response;
  response.status = 422;
  response.body = json.end_array().end_object().take();
  return response;
}

http::Response application_error(int status, std::string_view name, std::string_view detail, std::string_view errors) {
  JsonWriter json;
  json.begin_object().key("error").string(name).key("detail").string(detail);
  json.key("body").string("").key("errors").string(errors).end_object();
  http::Response response;
  response.status = status;
  response.body = json.take();
  return response;
}

void render_error(const http::Request&, http::Response& response) {
  response.content_type = "application/json";
  if (response.status == 404 || response.status == 405) {
    response.body = JsonWriter().begin_object().key("detail").string(response.error_detail).end_object().take();
  } else {
    response.body = application_error(response.status, "HTTPException", response.error_detail, "").body;
  }
}

}  // namespace octavo::api::a1111
