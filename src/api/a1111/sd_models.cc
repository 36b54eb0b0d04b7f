#include "api/a1111/endpoints.h"
#include "api/a1111/model.h"
#include "api/json_writer.h"

namespace octavo::api::a1111 {

std::string model_title(const generation::Capabilities& can) {
  return can.model_hash.empty() ? can.model_name : fmt::format("{} [{}]", can.model_name, can.model_hash);
}

bool names_model(const std::string& given, const generation::Capabilities& can) {
  return given == can.model_name || given == model_title(can) || (!can.model_hash.empty() && given == can.model_hash);
}

void sd_models(const Service& service, const std::shared_ptr<http::Exchange>& exchange) {
  const generation::Capabilities& can = service.capabilities;
  JsonWriter json;
  json.begin_array().begin_object().key("title").string(model_title(can)).key("model_name").string(can.model_name);
  json.key("hash");
  if (can.model_hash.empty()) {
    json.null();
  } else {
    json.string(can.model_hash);
  }
  // The file's place on this machine is nobody's business.
  json.key("sha256").null().key("filename").string(can.model_name).key("config").null();
  http::Response response;
  response.body = json.end_object().end_array().take();
  exchange->respond(std::move(response));
}

}  // namespace octavo::api::a1111
