#include "api/a1111/endpoints.h"
#include "api/a1111/errors.h"
#include "api/a1111/json_body.h"
#include "api/a1111/model.h"
#include "api/json_writer.h"
#include "base/log.h"

namespace octavo::api::a1111 {

void get_options(const Service& service, const std::shared_ptr<http::Exchange>& exchange) {
  const generation::Capabilities& can = service.capabilities;
  JsonWriter json;
  json.begin_object().key("sd_model_checkpoint").string(model_title(can)).key("sd_checkpoint_hash");
  json.string(can.model_hash).key("sd_vae").string("Automatic").key("CLIP_stop_at_last_layers").number(1);
  json.key("samples_format").string("png").key("samples_save").boolean(false).key("grid_save").boolean(false);
  json.key("return_grid").boolean(false).key("enable_pnginfo").boolean(true).key("randn_source").string("CPU");
  json.key("live_previews_enable").boolean(false).key("sd3_enable_t5").boolean(true);
  http::Response response;
  response.body = json.end_object().take();
  exchange->respond(std::move(response));
}

void set_options(const Service& service, const std::shared_ptr<http::Exchange>& exchange) {
  auto parsed = parse_json_body(exchange->request());
  if (const auto* error = std::get_if<FieldError>(&parsed)) return exchange->respond(validation_response({*error}));
  const auto& body = std::get<boost::json::object>(parsed);
  // "" and null: some clients send the key without a choice.
  if (const auto* model = body.if_contains("sd_model_checkpoint"); model != nullptr && model->is_string()) {
    const std::string name(model->get_string());
    if (!name.empty() && !names_model(name, service.capabilities)) {
      return exchange->respond(application_error(500, "RuntimeError", "", fmt::format("model '{}' not found", name)));
    }
  }
  http::Response response;
  response.body = "null";
  exchange->respond(std::move(response));
}

}  // namespace octavo::api::a1111
