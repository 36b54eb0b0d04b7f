#include "api/operations/endpoints.h"

namespace octavo::api::operations {

void metrics(const Service& service, const std::shared_ptr<http::Exchange>& exchange) {
  http::Response response;
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  response.body = service.metrics.exposition();
  exchange->respond(std::move(response));
}

}  // namespace octavo::api::operations
