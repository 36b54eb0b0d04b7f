#include "api/json_writer.h"
#include "api/operations/endpoints.h"

namespace octavo::api::operations {

void live(const Service&, const std::shared_ptr<http::Exchange>& exchange) {
  http::Response response;
  response.body = R"({"live":true})";
  exchange->respond(std::move(response));
}

void ready(const Service& service, const std::shared_ptr<http::Exchange>& exchange) {
  const std::string reason = service.not_ready ? service.not_ready() : std::string();
  JsonWriter json;
  json.begin_object().key("live").boolean(true).key("ready").boolean(reason.empty());
  if (!reason.empty()) json.key("reason").string(reason);
  http::Response response;
  response.status = reason.empty() ? 200 : 503;
  response.body = json.end_object().take();
  exchange->respond(std::move(response));
}

void ping(const Service&, const std::shared_ptr<http::Exchange>& exchange) {
  http::Response response;
  response.body = "{}";
  exchange->respond(std::move(response));
}

}  // namespace octavo::api::operations
