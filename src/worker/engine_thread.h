// EngineThread: the one thread that owns the generator. It claims jobs, runs them and reports; nothing a job does
// ends it, but for the loss of the generator itself. Stage timings go to telemetry.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "base/clock.h"
#include "generation/generation.h"
#include "scheduling/job_store.h"
#include "telemetry/metrics.h"

namespace octavo::worker {

struct EngineOptions {
  std::string name = "engine";
  std::optional<Clock::Duration> job_time_limit;  // kDeadlineExceeded for a run that takes longer
  /// Called once, from the engine's thread, when the generator is lost: the thread claims nothing more, and the process
  /// must end.
  std::function<void(const std::string& why)> on_lost;
};

class EngineThread {
 public:
  /// Starts the thread. Everything passed must outlive it. `generator` is called from this thread only.
  EngineThread(scheduling::JobStore& store, generation::Generator& generator, telemetry::Metrics& metrics,
               EngineOptions options = {}, const Clock& clock = system_clock());
  /// Closes the store, cancels what is left and joins.
  ~EngineThread();
  EngineThread(const EngineThread&) = delete;
  EngineThread& operator=(const EngineThread&) = delete;

  /// Runs what the store still holds to its end, then joins. The store must be closed; jobs cancelled meanwhile end
  /// at their next step border.
  void join();

 private:
  void run();
  void run_job(const scheduling::Claim& claim);
  Result<generation::GenerationResult> generate(const scheduling::Claim& claim);

  scheduling::JobStore& store_;
  generation::Generator& generator_;
  telemetry::Metrics& metrics_;
  const EngineOptions options_;
  const Clock& clock_;
  std::string lost_;  // why; of the engine's own thread
  std::thread thread_;
};

}  // namespace octavo::worker
