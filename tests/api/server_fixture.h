// The service column around the fake generator, on a free port.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <memory>
#include <thread>

#include "api/a1111/errors.h"
#include "api/routes.h"
#include "http/server.h"
#include "scheduling/memory_job_store.h"
#include "telemetry/metrics.h"
#include "testing/fake_generator.h"
#include "tests/api/client.h"
#include "worker/engine_thread.h"

namespace octavo::tests {

class ServerTest : public ::testing::Test {
 protected:
  ServerTest() {
    http_options.io_threads = 2;
    http_options.log_requests = false;
    http_options.linger_timeout = std::chrono::milliseconds(300);
    http_options.render_error = api::a1111::render_error;
  }
  ~ServerTest() override {
    generator.open_gate();
    engine.reset();  // ends its jobs, so that no handler waits when the server goes
  }

  /// With http_options and store_options as they are by then.
  void start() {
    store = std::make_unique<scheduling::MemoryJobStore>(store_options, system_clock(), &metrics);
    service.reset(new api::Service{*store, generator.capabilities(), metrics, "octavo test",
                                   [this] { return std::string(server->draining() ? "draining" : ""); }});
    auto started = http::Server::start(http_options, http::Router(api::routes(*service)), metrics);
    OCTAVO_CHECK(started.ok(), "{}", started.status().to_string());
    server = *std::move(started);
    engine = std::make_unique<worker::EngineThread>(*store, generator, metrics);
  }
  Answer call(const std::string& method, const std::string& target, const std::string& body = "") {
    return Client(server->port()).call(method, target, body);
  }
  Answer draw(const std::string& body) { return call("POST", "/sdapi/v1/txt2img", body); }
  /// The server still draws.
  bool alive() { return draw(kSmall).status == 200; }
  /// Waits until a condition that another thread brings about holds; false after 10 s.
  template <typename Condition>
  static bool eventually(Condition condition) {
    for (int i = 0; i < 5000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return false;
  }
  bool metric_says(const std::string& line) {
    return eventually([&] { return metrics.exposition().find(line + "\n") != std::string::npos; });
  }

  static constexpr const char* kSmall = R"({"prompt": "a cat", "width": 128, "height": 128, "steps": 2, "seed": 7})";

  http::ServerOptions http_options;
  scheduling::JobStoreOptions store_options;
  octavo::testing::FakeGenerator generator;
  telemetry::Metrics metrics;
  std::unique_ptr<scheduling::MemoryJobStore> store;
  std::unique_ptr<api::Service> service;
  std::unique_ptr<http::Server> server;
  std::unique_ptr<worker::EngineThread> engine;
};

inline boost::json::value parse(const std::string& text) { return boost::json::parse(text); }
inline std::string text_of(const boost::json::value& value) { return std::string(value.as_string()); }

}  // namespace octavo::tests
