#include "http/middleware.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/ids.h"
#include "base/log.h"

namespace octavo::http {
namespace {

constexpr std::size_t kMaxRequestIdBytes = 64;
constexpr std::size_t kMaxLoggedTargetBytes = 200;
constexpr int kClientClosedRequest = 499;  // nginx's number for "the client left first"; never sent

bool is_request_id(std::string_view text) {
  return !text.empty() && text.size() <= kMaxRequestIdBytes && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
           c == '.';
  });
}

int final_status(const Exchange& exchange, const Response& response) {
  return exchange.client_gone() ? kClientClosedRequest : response.status;
}

bool request_id(const std::shared_ptr<Exchange>& exchange, ServerContext&) {
  const std::string given(exchange->request().header("X-Request-Id"));
  exchange->set_request_id(is_request_id(given) ? given : random_id());
  exchange->before_send([](const Exchange& done, Response& response) {
    response.headers.push_back({"X-Request-Id", done.request().id});
  });
  return true;
}

bool access_log(const std::shared_ptr<Exchange>& exchange, ServerContext& context) {
  if (!context.options.log_requests) return true;
  exchange->before_send([&context](const Exchange& done, Response& response) {
    const Request& request = done.request();
    spdlog::info("{} {} {} {:.1f} ms {} bytes {}", request.method.empty() ? "-" : request.method,
                 request.target.substr(0, kMaxLoggedTargetBytes), final_status(done, response),
                 1e3 * seconds(context.clock.now() - request.received_at), response.body.size(), request.id);
  });
  return true;
}

bool metrics(const std::shared_ptr<Exchange>& exchange, ServerContext& context) {
  exchange->before_send([&context](const Exchange& done, Response& response) {
    const Request& request = done.request();
    const std::string code = std::to_string(final_status(done, response));
    context.metrics.add(telemetry::metric::kRequests, {request.route, code});
    context.metrics.observe(telemetry::metric::kRequestSeconds, {request.route},
                            seconds(context.clock.now() - request.received_at));
  });
  return true;
}

bool process_time(const std::shared_ptr<Exchange>& exchange, ServerContext& context) {
  exchange->before_send([&context](const Exchange& done, Response& response) {
    const double elapsed = seconds(context.clock.now() - done.request().received_at);
    response.headers.push_back({"X-Process-Time", fmt::format("{:.4f}", elapsed)});
  });
  return true;
}

bool error_shape(const std::shared_ptr<Exchange>& exchange, ServerContext& context) {
  exchange->before_send([&context](const Exchange& done, Response& response) {
    if (response.error_detail.empty()) return;
    if (context.options.render_error) {
      context.options.render_error(done.request(), response);
    } else {
      response.content_type = "text/plain; charset=utf-8";
      response.body = response.error_detail + "\n";
    }
  });
  return true;
}

bool refuse_while_draining(const std::shared_ptr<Exchange>& exchange, ServerContext& context) {
  if (!context.draining || exchange->request().method == "GET" || exchange->request().method == "HEAD") return true;
  Response response = error_response(503, "the server is shutting down");
  response.headers.push_back({"Retry-After", "1"});
  exchange->respond(std::move(response));
  return false;
}

// Requests go down the list, answers come back up: the first row sees the answer last.
constexpr std::array kMiddleware = {
    MiddlewareRow{"request_id", "first, so that every line below and every answer carries it", request_id},
    MiddlewareRow{"access_log", "sees the answer as it leaves, refusals included", access_log},
    MiddlewareRow{"metrics", "as the log: what is logged is what is counted", metrics},
    MiddlewareRow{"process_time", "A1111 sends X-Process-Time on every answer", process_time},
    MiddlewareRow{"error_shape", "below the log, so that the bytes logged are the bytes sent; above all that refuses",
                  error_shape},
    MiddlewareRow{"refuse_while_draining", "last: a refusal still has an id, a shape and a count",
                  refuse_while_draining},
};

}  // namespace

std::span<const MiddlewareRow> middleware() { return kMiddleware; }

bool enter_middleware(const std::shared_ptr<Exchange>& exchange, ServerContext& context) {
  return std::all_of(kMiddleware.begin(), kMiddleware.end(),
                     [&](const MiddlewareRow& row) { return row.enter(exchange, context); });
}

}  // namespace octavo::http
