#include <fmt/format.h>

#include "api/operations/endpoints.h"

namespace octavo::api::operations {

void index(const Service& service, const std::shared_ptr<http::Exchange>& exchange) {
  const generation::Capabilities& can = service.capabilities;
  http::Response response;
  response.content_type = "text/plain; charset=utf-8";
  response.body = fmt::format(
      R"({0} draws pictures from words with {1}.

  curl -s http://localhost:7860/sdapi/v1/txt2img -H 'Content-Type: application/json' \
    -d '{{"prompt": "a red apple", "negative_prompt": "", "width": {2}, "height": {3}, "steps": {4}, "cfg_scale": {5}}}'

The answer is {{"images": [base64 PNG], "parameters": {{...}}, "info": "..."}}, as AUTOMATIC1111's.
Width and height: multiples of {6} from {7} to {8}.

  GET  /sdapi/v1/progress    how far the running call is
  POST /sdapi/v1/interrupt   stop it; it answers with what is drawn
  GET  /sdapi/v1/samplers, /sdapi/v1/schedulers, /sdapi/v1/sd-models, /sdapi/v1/options
  GET  /v2/health/live, /v2/health/ready, /metrics
)",
      service.version, can.model_name, can.default_width, can.default_height, can.default_steps,
      can.default_guidance_scale, can.size_multiple, can.min_size, can.max_size);
  exchange->respond(std::move(response));
}

}  // namespace octavo::api::operations
