#include "serve.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>

#include "api/a1111/errors.h"
#include "api/routes.h"
#include "base/guarded.h"
#include "base/log.h"
#include "http/server.h"
#include "scheduling/memory_job_store.h"
#include "telemetry/metrics.h"
#include "version.h"
#include "worker/engine_thread.h"

namespace octavo::app {
namespace {

/// After the drain timeout: what a cancelled job may take to reach its next step border and be answered.
constexpr std::chrono::seconds kCancelledJobsTimeout{20};

// A signal handler may touch little: it counts, and wakes the main thread through the event.
std::atomic<int> g_signal_count{0};
std::atomic<int> g_signal_event{-1};

extern "C" void on_signal(int number) {
  if (g_signal_count.fetch_add(1) > 0) _exit(128 + number);
  const int saved_errno = errno;
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(g_signal_event.load(), &one, sizeof(one));
  errno = saved_errno;
}

/// Owns SIGTERM and SIGINT while alive.
class SignalWait {
 public:
  SignalWait() : event_(eventfd(0, EFD_CLOEXEC)) {
    OCTAVO_CHECK(event_ >= 0, "eventfd failed: {}", errno);
    g_signal_count = 0;
    g_signal_event = event_;
    struct sigaction action = {};
    action.sa_handler = on_signal;
    sigemptyset(&action.sa_mask);
    for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &action, &previous_[i]);
  }
  ~SignalWait() {
    for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &previous_[i], nullptr);
    g_signal_event = -1;
    ::close(event_);
  }
  SignalWait(const SignalWait&) = delete;
  SignalWait& operator=(const SignalWait&) = delete;

  /// As a signal would, from any thread.
  void wake() const {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(event_, &one, sizeof one);
  }
  void wait() const {
    pollfd waiting{event_, POLLIN, 0};
    while (poll(&waiting, 1, -1) < 0 && errno == EINTR) {
    }
  }

 private:
  static constexpr std::array<int, 2> kSignals = {SIGTERM, SIGINT};
  const int event_;
  std::array<struct sigaction, 2> previous_{};
};

std::string url_of(const ServeOptions& options, int port) {
  std::string host = options.address;
  if (host == "0.0.0.0" || host == "::") host = "localhost";
  if (host.find(':') != std::string::npos) host = "[" + host + "]";
  return fmt::format("http://{}:{}", host, port);
}

}  // namespace

Status run_server(generation::Generator& generator, const ServeOptions& options) {
  // Destroyed in reverse: the engine ends its jobs before the server whose answers they are goes away.
  telemetry::Metrics metrics;
  scheduling::JobStoreOptions store_options;
  store_options.queue_limit = options.queue_limit;
  scheduling::MemoryJobStore store(store_options, system_clock(), &metrics);
  std::atomic<bool> draining{false};
  const api::Service service{
      .store = store,
      .capabilities = generator.capabilities(),
      .metrics = metrics,
      .version = fmt::format("octavo {}", kVersion),
      .not_ready = [&draining] { return std::string(draining ? "draining" : ""); },
  };
  http::ServerOptions http_options;
  http_options.address = options.address;
  http_options.port = options.port;
  http_options.io_threads = options.io_threads;
  http_options.max_connections = options.max_connections;
  http_options.max_body_bytes = options.max_body_bytes;
  http_options.render_error = api::a1111::render_error;

  const SignalWait signals;
  OCTAVO_ASSIGN_OR_RETURN(const std::unique_ptr<http::Server> server,
                          http::Server::start(std::move(http_options), http::Router(api::routes(service)), metrics));
  worker::EngineOptions engine_options;
  if (options.job_time_limit.count() > 0) engine_options.job_time_limit = options.job_time_limit;
  Guarded<std::string> lost;
  engine_options.on_lost = [&lost, &signals](const std::string& why) {
    *lost.lock() = why;
    signals.wake();
  };
  worker::EngineThread engine(store, generator, metrics, engine_options);
  spdlog::info("serving {} at {}", generator.capabilities().model_name, url_of(options, server->port()));
  if (options.on_listening) options.on_listening(server->port());

  signals.wait();
  spdlog::info("shutting down: finishing {} running and {} waiting jobs; a second signal ends at once",
               store.figures().running, store.figures().waiting);
  draining = true;
  server->begin_drain();
  store.close();
  if (!lost.lock()->empty()) store.cancel_all();  // nobody is left to run what waits
  if (!server->wait_idle(options.drain_timeout)) {
    spdlog::warn("not done after {} s: cancelling what is left", options.drain_timeout.count());
    store.cancel_all();
    if (!server->wait_idle(kCancelledJobsTimeout)) spdlog::warn("some connections are still open; closing them");
  }
  store.cancel_all();
  engine.join();
  if (const std::string why = *lost.lock(); !why.empty())
    return unavailable("engine", why);  // whoever started this process starts it anew
  spdlog::info("bye");
  return {};
}

}  // namespace octavo::app
