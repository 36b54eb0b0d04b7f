// Service: what the endpoints work with. Made once by the wiring; lives as long as the server.
#pragma once

#include <functional>
#include <string>

#include "base/clock.h"
#include "generation/generation.h"
#include "scheduling/job_store.h"
#include "telemetry/metrics.h"

namespace octavo::api {

struct Service {
  scheduling::JobStore& store;
  const generation::Capabilities& capabilities;
  telemetry::Metrics& metrics;
  std::string version;                     // "octavo 0.1.0": in infotexts and /
  std::function<std::string()> not_ready;  // why no picture can be drawn now ("draining"), or ""
  const Clock& clock = system_clock();
};

}  // namespace octavo::api
