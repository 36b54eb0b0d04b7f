#include "api/a1111/endpoints.h"
#include "base/log.h"

namespace octavo::api::a1111 {
namespace {

void interrupt_running(const Service& service) {
  for (const scheduling::Job& job : service.store.running()) {
    const Status interrupted = service.store.interrupt(job.id);
    // It may have ended since; then there is nothing to interrupt.
    if (!interrupted.ok()) spdlog::debug("job {}: {}", job.id, interrupted.to_string());
  }
}

void answer(const std::shared_ptr<http::Exchange>& exchange, const char* body) {
  http::Response response;
  response.body = body;
  exchange->respond(std::move(response));
}

}  // namespace

void interrupt(const Service& service, const std::shared_ptr<http::Exchange>& exchange) {
  interrupt_running(service);
  answer(exchange, "{}");
}

void skip(const Service& service, const std::shared_ptr<http::Exchange>& exchange) {
  interrupt_running(service);
  answer(exchange, "null");
}

}  // namespace octavo::api::a1111
