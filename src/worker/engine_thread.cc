#include "worker/engine_thread.h"

#include <exception>
#include <utility>

#include "base/log.h"
#include "telemetry/stages.h"

namespace octavo::worker {
namespace {

/// How long one claim waits, and the pause after one that failed. A waiting claim wakes for work and for the store's
/// closing.
constexpr std::chrono::seconds kClaimWait{1};

}  // namespace

EngineThread::EngineThread(scheduling::JobStore& store, generation::Generator& generator, telemetry::Metrics& metrics,
                           EngineOptions options, const Clock& clock)
    : store_(store), generator_(generator), metrics_(metrics), options_(std::move(options)), clock_(clock) {
  thread_ = std::thread([this] { run(); });
}

EngineThread::~EngineThread() {
  store_.close();
  store_.cancel_all();
  join();
}

void EngineThread::join() {
  if (thread_.joinable()) thread_.join();
}

void EngineThread::run() {
  for (;;) {
    auto claimed = store_.claim(options_.name, kClaimWait);
    if (!claimed.ok()) {
      if (claimed.status().code() == ErrorCode::kUnavailable) return;
      spdlog::error("{}: cannot claim a job: {}", options_.name, claimed.status().to_string());
      std::this_thread::sleep_for(kClaimWait);  // a store that is away is not asked in a tight loop
      continue;
    }
    if (claimed->has_value()) run_job(**claimed);
    if (lost_.empty()) continue;
    if (options_.on_lost) options_.on_lost(lost_);  // its job has been told by now
    return;
  }
}

void EngineThread::run_job(const scheduling::Claim& claim) {
  const Clock::TimePoint started = clock_.now();
  metrics_.observe(telemetry::metric::kStageSeconds, {telemetry::kQueueWait}, seconds(started - claim.submitted_at));
  Result<generation::GenerationResult> result = generate(claim);
  Status reported;
  if (result.ok()) {
    for (const auto& [stage, stage_seconds] : result->stage_seconds) {
      if (stage == telemetry::kTotal) continue;  // the run's; the metric is the job's, waiting included
      metrics_.observe(telemetry::metric::kStageSeconds, {stage}, stage_seconds);
    }
    metrics_.observe(telemetry::metric::kStageSeconds, {telemetry::kTotal}, seconds(clock_.now() - claim.submitted_at));
    metrics_.add(telemetry::metric::kImages, {}, static_cast<double>(result->images.size()));
    reported = store_.complete(claim, *std::move(result));
  } else {
    if (result.status().code() != ErrorCode::kCancelled) {
      spdlog::warn("job {}: {}: {}", claim.job_id, error_code_name(result.status().code()),
                   result.status().to_string());
    }
    reported = store_.fail(claim, result.status());
  }
  if (!reported.ok()) spdlog::warn("job {}: its end was refused: {}", claim.job_id, reported.to_string());
}

Result<generation::GenerationResult> EngineThread::generate(const scheduling::Claim& claim) {
  generation::RunControl control;
  control.cancel = claim.cancel;
  if (options_.job_time_limit) control.deadline = clock_.now() + *options_.job_time_limit;
  control.on_progress = [&](const generation::Progress& progress) {
    const auto reply = store_.heartbeat(claim, progress);
    // Refused: the job is another worker's by now, so stop drawing it.
    if (!reply.ok() || reply->stop) claim.cancel.cancel();
  };
  try {
    return generator_.generate(claim.request, control);
  } catch (const generation::GeneratorLost& error) {
    lost_ = error.what();
    spdlog::critical("{}: {}; this process cannot draw any more", options_.name, error.what());
    return unavailable("engine", error.what());
  } catch (const std::exception& error) {
    return internal_error("engine", error.what());
  } catch (...) {
    return internal_error("engine", "an exception of unknown type");
  }
}

}  // namespace octavo::worker
