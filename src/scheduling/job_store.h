// JobStore: where jobs wait, and who runs them. The service submits and watches; workers claim, report and end.
//
// A claim is a lease with a fence: it holds until lease_until, each heartbeat extends it, and once it has run out
// another worker may claim the job with a higher fence. A worker that comes back late is refused by its old fence, so
// a job ends once. Every backend passes the suite in job_store_test.cc.
//
// All functions are safe from any thread.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "generation/generation.h"
#include "scheduling/job.h"

namespace octavo::telemetry {
class Metrics;
}

namespace octavo::scheduling {

struct JobStoreOptions {
  std::size_t queue_limit = 64;                     // jobs waiting (parked ones included); running ones do not count
  Clock::Duration lease = std::chrono::minutes(2);  // longer than the slowest step between two heartbeats
  int max_attempts = 2;                             // workers that may be lost over a job before it fails
  std::size_t finished_limit = 64;  // ended jobs remembered, with their results; the oldest is forgotten first
};

/// What a worker holds while it runs a job.
struct Claim {
  std::string job_id;
  std::uint64_t fence = 0;
  int attempt = 1;
  Clock::TimePoint submitted_at{};
  generation::GenerationRequest request;
  std::string saved_state;         // not empty: go on from here
  generation::CancelToken cancel;  // set when the job should stop at the next step border
};

struct HeartbeatReply {
  bool stop = false;  // cancelled or interrupted: end the job at the next step border
};

struct QueueFigures {
  std::size_t waiting = 0;
  std::size_t running = 0;
  /// When a refused caller should come back: the backlog at the pace of the last jobs; at least 1.
  int retry_after_seconds = 1;
};

class JobStore {
 public:
  using Finished = std::function<void(const Job&)>;
  virtual ~JobStore() = default;

  // ---- the service's side ----

  /// Returns the job's id. kResourceExhausted (subject "queue") when the queue is full, kUnavailable when closed.
  /// `request` must be resolved.
  virtual Result<std::string> submit(generation::GenerationRequest request, std::string tenant = {}) = 0;
  /// Calls `finished` once with the ended job: from the thread that ends it, with no lock held, or at once when it
  /// has ended already. kNotFound when the job is unknown.
  virtual Status on_finished(const std::string& job_id, Finished finished) = 0;
  /// Nobody wants the result any more. A waiting job ends now; a running one at its next step border. Ended jobs are
  /// left alone. kNotFound when unknown.
  virtual Status cancel(const std::string& job_id) = 0;
  /// Ends a running job early; what is drawn is kept when its request says keep_partial. kFailedPrecondition when it
  /// is not running, kNotFound when unknown.
  virtual Status interrupt(const std::string& job_id) = 0;
  virtual Result<Job> get(const std::string& job_id) const = 0;
  /// Jobs in front of it: 0 = next. Nothing when it does not wait.
  virtual std::optional<std::size_t> queue_position(const std::string& job_id) const = 0;
  /// Running jobs, the longest running first.
  virtual std::vector<Job> running() const = 0;
  virtual QueueFigures figures() const = 0;
  /// Drops an ended job and its result; others are left alone.
  virtual void forget(const std::string& job_id) = 0;
  /// Refuses new jobs from now on. Waiting jobs can still be claimed; when none is left, claim() says kUnavailable.
  virtual void close() = 0;
  /// cancel() for every job that has not ended.
  virtual void cancel_all() = 0;

  // ---- the worker's side ----

  /// The next job, or nothing when none came within `wait`. Jobs whose lease ran out are given to others here.
  /// kUnavailable: closed and nothing is left to do.
  virtual Result<std::optional<Claim>> claim(const std::string& worker, Clock::Duration wait) = 0;
  // The calls below take the claim's id and fence; kFailedPrecondition when the claim is no longer the latest or the
  // job has ended: the worker must drop the job without a trace.
  /// Extends the lease and stores the progress.
  virtual Result<HeartbeatReply> heartbeat(const Claim& claim, const generation::Progress& progress) = 0;
  /// Gives the job back to the front of the queue. A job that was cancelled meanwhile ends as cancelled.
  virtual Status park(const Claim& claim, std::string saved_state) = 0;
  /// Ends as succeeded; as cancelled when it was cancelled and the result is only a part.
  virtual Status complete(const Claim& claim, generation::GenerationResult result) = 0;
  /// Ends as failed, or as cancelled when `error` is kCancelled.
  virtual Status fail(const Claim& claim, Status error) = 0;
};

}  // namespace octavo::scheduling
