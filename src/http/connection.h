// Connection: one client, from accept to close. Internal to src/http; the only user is server.cc.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <functional>
#include <memory>

#include "http/middleware.h"
#include "http/router.h"

namespace octavo::http {

class Connection {
 public:
  virtual ~Connection() = default;
  /// Serves until the connection ends, then calls `ended` once, from an I/O thread.
  virtual void start(std::function<void()> ended) = 0;
  /// Answers what is being read or worked on, then closes; closes at once when idle. Safe from any thread.
  virtual void drain() = 0;
};

/// `socket` must be bound to a strand; `io` runs handlers' posted work on any I/O thread.
std::shared_ptr<Connection> make_connection(boost::asio::ip::tcp::socket socket, boost::asio::any_io_executor io,
                                            const Router& router, ServerContext& context);

/// Answers 503 without reading, and closes: for connections over the limit. Calls `ended` once.
void refuse_connection(boost::asio::ip::tcp::socket socket, ServerContext& context, std::function<void()> ended);

}  // namespace octavo::http
