// `octavo serve`: the service column put together around one generator.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <string>

#include "base/status.h"
#include "generation/generation.h"

namespace octavo::app {

struct ServeOptions {
  std::string address = "127.0.0.1";  // "0.0.0.0" or "::" to listen on every interface
  int port = 7860;                    // 0 = any free one
  int io_threads = 2;
  std::size_t queue_limit = 64;  // jobs waiting; more are refused with 503 and Retry-After
  std::size_t max_body_bytes = 32u << 20;
  int max_connections = 256;
  std::chrono::seconds drain_timeout{60};      // SIGTERM: what runs and waits may take this long, then it is cancelled
  std::chrono::seconds job_time_limit{0};      // 0 = none
  std::function<void(int port)> on_listening;  // called once with the port in use; may be empty
};

/// Serves until SIGTERM or SIGINT, then drains: no new connections or jobs, accepted jobs are drawn and answered, and
/// after `drain_timeout` cancelled. A second signal ends the process at once. Logs the address and one line per
/// request. Returns ok after a drain; an error when it cannot listen ("port 7860 is in use ...").
/// Call from the main thread, once in a process: it owns the two signals meanwhile. `generator` is called from one
/// thread that this function starts.
Status run_server(generation::Generator& generator, const ServeOptions& options);

}  // namespace octavo::app
