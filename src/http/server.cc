#include "http/server.h"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include "base/log.h"
#include "http/connection.h"

namespace octavo::http {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

/// Connections over the limit that are told so at one time; beyond, they are closed without a word.
constexpr int kMaxRefusals = 64;
/// Pause after accept() fails for want of file descriptors or memory.
constexpr std::chrono::milliseconds kAcceptPause{100};

Status listen_error(const ServerOptions& options, error_code error) {
  const std::string where = fmt::format("port {}", options.port);
  if (error == asio::error::address_in_use) {
    return unavailable(
        where, fmt::format("is in use on {}; stop the other process or choose another with --port", options.address));
  }
  if (error == asio::error::access_denied) {
    return failed_precondition(where, "needs root; choose one from 1024 up with --port");
  }
  return unavailable(where, fmt::format("cannot listen on {}: {}", options.address, error.message()));
}

}  // namespace

struct Server::Impl {
  Impl(ServerOptions given, Router given_router, telemetry::Metrics& metrics)
      : options(std::move(given)),
        router(std::move(given_router)),
        context{.options = options, .metrics = metrics},
        acceptor(asio::make_strand(io)) {}

  Status listen();
  void run();
  asio::awaitable<void> accept_loop();
  void admit(tcp::socket socket);
  void publish_count();

  const ServerOptions options;
  const Router router;
  ServerContext context;
  asio::io_context io;
  tcp::acceptor acceptor;
  int port = 0;
  std::vector<std::thread> threads;

  std::mutex mutex;
  std::condition_variable ended;
  std::set<std::shared_ptr<Connection>> connections;
  int refusals = 0;
};

Status Server::Impl::listen() {
  error_code error;
  const auto address = asio::ip::make_address(options.address, error);
  if (error) return invalid_argument("address", fmt::format("'{}' is not an IP address", options.address));
  if (options.port < 0 || options.port > 65535) {
    return invalid_argument("port", fmt::format("{} is outside 0 to 65535", options.port));
  }
  const tcp::endpoint endpoint(address, static_cast<asio::ip::port_type>(options.port));
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) return listen_error(options, error);
  port = acceptor.local_endpoint().port();
  return {};
}

void Server::Impl::run() {
  asio::co_spawn(acceptor.get_executor(), accept_loop(), asio::detached);
  for (int i = 0; i < std::max(1, options.io_threads); ++i) {
    threads.emplace_back([this] {
      for (;;) {
        try {
          io.run();
          return;
        } catch (const std::exception& error) {
          spdlog::error("http: {}", error.what());  // from work posted by a handler; the loop goes on
        }
      }
    });
  }
}

asio::awaitable<void> Server::Impl::accept_loop() {
  asio::steady_timer pause(acceptor.get_executor());
  while (!context.draining) {
    error_code error;
    tcp::socket socket =
        co_await acceptor.async_accept(asio::make_strand(io), asio::redirect_error(asio::use_awaitable, error));
    if (context.draining) co_return;
    if (error == asio::error::operation_aborted || error == asio::error::bad_descriptor) co_return;
    if (error) {
      spdlog::warn("http: cannot accept: {}", error.message());
      pause.expires_after(kAcceptPause);
      co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
      continue;
    }
    admit(std::move(socket));
  }
}

void Server::Impl::admit(tcp::socket socket) {
  std::unique_lock lock(mutex);
  if (connections.size() >= static_cast<std::size_t>(options.max_connections)) {
    if (refusals >= kMaxRefusals) return;  // the socket closes
    ++refusals;
    lock.unlock();
    refuse_connection(std::move(socket), context, [this] {
      const std::lock_guard relock(mutex);
      --refusals;
      ended.notify_all();
    });
    return;
  }
  const auto connection = make_connection(std::move(socket), io.get_executor(), router, context);
  connections.insert(connection);
  publish_count();
  lock.unlock();
  connection->start([this, connection] {
    const std::lock_guard relock(mutex);
    connections.erase(connection);
    publish_count();
    ended.notify_all();
  });
}

void Server::Impl::publish_count() {
  context.metrics.set(telemetry::metric::kConnections, {}, static_cast<double>(connections.size()));
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<Server>> Server::start(ServerOptions options, Router router, telemetry::Metrics& metrics) {
  auto impl = std::make_unique<Impl>(std::move(options), std::move(router), metrics);
  OCTAVO_RETURN_IF_ERROR(impl->listen());
  impl->run();
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Server::~Server() {
  impl_->io.stop();
  for (std::thread& thread : impl_->threads) thread.join();
  impl_->context.stopped = true;
}

int Server::port() const { return impl_->port; }

bool Server::draining() const { return impl_->context.draining; }

void Server::begin_drain() {
  impl_->context.draining = true;
  asio::post(impl_->acceptor.get_executor(), [impl = impl_.get()] {
    error_code ignored;
    impl->acceptor.close(ignored);
  });
  const std::lock_guard lock(impl_->mutex);
  for (const auto& connection : impl_->connections) connection->drain();
}

bool Server::wait_idle(Clock::Duration timeout) {
  std::unique_lock lock(impl_->mutex);
  return impl_->ended.wait_for(lock, timeout, [&] { return impl_->connections.empty() && impl_->refusals == 0; });
}

}  // namespace octavo::http
