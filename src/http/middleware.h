// What every request passes before its handler and every answer passes on its way out: one ordered list.
#pragma once

#include <atomic>
#include <span>

#include "base/clock.h"
#include "http/exchange.h"
#include "http/server.h"

namespace octavo::http {

/// What the rows may use; lives as long as the server.
struct ServerContext {
  const ServerOptions& options;
  telemetry::Metrics& metrics;
  const Clock& clock = system_clock();
  std::atomic<bool> draining{false};
  std::atomic<bool> stopped{false};  // the I/O threads are gone: answers have nowhere to go
};

struct MiddlewareRow {
  const char* name;
  const char* reason;  // why it stands at this place
  /// May look at the request, add hooks, or answer. False = answered, go no further.
  bool (*enter)(const std::shared_ptr<Exchange>& exchange, ServerContext& context);
};

std::span<const MiddlewareRow> middleware();

/// Runs the list. False = one of the rows has answered.
bool enter_middleware(const std::shared_ptr<Exchange>& exchange, ServerContext& context);

}  // namespace octavo::http
