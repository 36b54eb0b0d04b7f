// Server: HTTP/1.1 on one port. A few I/O threads, a coroutine per connection; a handler that waits holds no thread.
//
// Every wait on a client has a limit: header, body, answer and idle time, header and body bytes, connections. A client
// that closes while its request is worked on is noticed at once (Exchange::on_client_gone); closing only the sending
// half counts as leaving.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/status.h"
#include "http/router.h"
#include "telemetry/metrics.h"

namespace octavo::http {

struct ServerOptions {
  std::string address = "127.0.0.1";
  int port = 0;  // 0 = any free one
  int io_threads = 2;
  int max_connections = 256;                                  // more are answered 503 and closed
  std::size_t max_body_bytes = 32u << 20;                     // 413
  std::size_t max_header_bytes = 8u << 10;                    // 431: request line and headers together
  std::size_t max_target_bytes = 4u << 10;                    // 414
  Clock::Duration header_timeout = std::chrono::seconds(10);  // connect to end of headers: closed
  Clock::Duration body_timeout = std::chrono::seconds(60);    // whole body: closed
  Clock::Duration write_timeout = std::chrono::seconds(60);   // whole answer: closed
  Clock::Duration idle_timeout = std::chrono::seconds(30);    // between requests: closed
  Clock::Duration linger_timeout = std::chrono::seconds(2);   // after a refusal, for what the client still sends
  bool log_requests = true;                                   // one line each at level info
  /// Fills `body` and `content_type` from `error_detail`; null = plain text.
  std::function<void(const Request&, Response&)> render_error;
};

class Server {
 public:
  /// Listens and serves at once. Everything passed must outlive the server. kUnavailable when the port is taken,
  /// kInvalidArgument for an address that is none; the message says what to do.
  static Result<std::unique_ptr<Server>> start(ServerOptions options, Router router, telemetry::Metrics& metrics);
  /// Stops at once: unanswered requests are dropped. No handler may hold an Exchange any more.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// The port in use.
  int port() const;
  /// Refuses new connections, closes idle ones, answers new requests but GETs with 503; what is being worked on goes
  /// on. Each connection ends with its answer.
  void begin_drain();
  bool draining() const;
  /// Waits until no connection is left; false when `timeout` passed first.
  bool wait_idle(Clock::Duration timeout);

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace octavo::http
