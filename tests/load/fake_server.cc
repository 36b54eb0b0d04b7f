// `octavo serve` around the fake generator: the service column without a model, for load tests and clients.
// Usage: octavo_fake_server [port] [milliseconds a step]
#include <chrono>
#include <cstdlib>
#include <iostream>

#include "base/log.h"
#include "serve.h"
#include "testing/fake_generator.h"

int main(int argc, char** argv) {
  octavo::initialise_logging();
  octavo::testing::FakeGenerator generator;
  octavo::app::ServeOptions options;
  if (argc > 1) options.port = std::atoi(argv[1]);
  if (argc > 2) generator.set_step_time(std::chrono::milliseconds(std::atoi(argv[2])));
  const octavo::Status served = octavo::app::run_server(generator, options);
  if (!served.ok()) {
    std::cerr << served.to_string() << "\n";
    return 1;
  }
  return 0;
}
