#include "api/routes.h"

#include "api/a1111/endpoints.h"
#include "api/operations/endpoints.h"

namespace octavo::api {
namespace {

using Endpoint = void (*)(const Service&, const std::shared_ptr<http::Exchange>&);

struct Row {
  const char* method;
  const char* path;
  Endpoint endpoint;
};

// A new endpoint is one file and one line here.
constexpr Row kRows[] = {
    {"GET", "/", operations::index},
    {"HEAD", "/", operations::index},
    {"GET", "/v2/health/live", operations::live},
    {"GET", "/v2/health/ready", operations::ready},
    {"GET", "/internal/ping", operations::ping},
    {"GET", "/metrics", operations::metrics},
    {"POST", "/sdapi/v1/txt2img", a1111::txt2img},
    {"GET", "/sdapi/v1/progress", a1111::progress},
    {"POST", "/sdapi/v1/interrupt", a1111::interrupt},
    {"POST", "/sdapi/v1/skip", a1111::skip},
    {"GET", "/sdapi/v1/samplers", a1111::samplers},
    {"GET", "/sdapi/v1/schedulers", a1111::schedulers},
    {"GET", "/sdapi/v1/sd-models", a1111::sd_models},
    {"GET", "/sdapi/v1/options", a1111::get_options},
    {"POST", "/sdapi/v1/options", a1111::set_options},
};

}  // namespace

std::vector<http::Route> routes(const Service& service) {
  std::vector<http::Route> table;
  for (const Row& row : kRows) {
    table.push_back(
        {row.method, row.path, [&service, endpoint = row.endpoint](const std::shared_ptr<http::Exchange>& exchange) {
           endpoint(service, exchange);
         }});
  }
  return table;
}

}  // namespace octavo::api
