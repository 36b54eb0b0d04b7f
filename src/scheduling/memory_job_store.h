// MemoryJobStore: a bounded first-in first-out queue in this process. Jobs die with it.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>

#include "scheduling/job_store.h"

namespace octavo::scheduling {

class MemoryJobStore final : public JobStore {
 public:
  /// `clock` judges leases and must outlive the store; `metrics` may be null.
  explicit MemoryJobStore(const JobStoreOptions& options = {}, const Clock& clock = system_clock(),
                          telemetry::Metrics* metrics = nullptr);

  Result<std::string> submit(generation::GenerationRequest request, std::string tenant = {}) override;
  Status on_finished(const std::string& job_id, Finished finished) override;
  Status cancel(const std::string& job_id) override;
  Status interrupt(const std::string& job_id) override;
  Result<Job> get(const std::string& job_id) const override;
  std::optional<std::size_t> queue_position(const std::string& job_id) const override;
  std::vector<Job> running() const override;
  QueueFigures figures() const override;
  void forget(const std::string& job_id) override;
  void close() override;
  void cancel_all() override;
  Result<std::optional<Claim>> claim(const std::string& worker, Clock::Duration wait) override;
  Result<HeartbeatReply> heartbeat(const Claim& claim, const generation::Progress& progress) override;
  Status park(const Claim& claim, std::string saved_state) override;
  Status complete(const Claim& claim, generation::GenerationResult result) override;
  Status fail(const Claim& claim, Status error) override;

 private:
  struct Entry {
    Job job;
    std::vector<Finished> watchers;
  };
  /// Calls to make once the lock is released.
  struct Ended {
    std::shared_ptr<const Job> job;
    std::vector<Finished> watchers;
  };
  using Lock = std::unique_lock<std::mutex>;

  // All need the lock.
  Result<Entry*> find(const std::string& job_id);
  Result<Entry*> find_claimed(const Claim& claim);
  void end(Entry& entry, JobState state, Status error, std::vector<Ended>& ended);
  void cancel_entry(Entry& entry, std::vector<Ended>& ended);
  void reclaim_expired(std::vector<Ended>& ended);
  std::size_t running_count() const;
  void publish_figures() const;

  static void notify(const std::vector<Ended>& ended);

  const JobStoreOptions options_;
  const Clock& clock_;
  telemetry::Metrics* const metrics_;
  mutable std::mutex mutex_;
  std::condition_variable work_arrived_;
  std::map<std::string, Entry> jobs_;
  std::deque<std::string> queue_;     // waiting, in order of service
  std::deque<std::string> finished_;  // ended, oldest first
  std::uint64_t last_fence_ = 0;
  double mean_run_seconds_ = 0;  // moving average over ended runs
  bool closed_ = false;
};

}  // namespace octavo::scheduling
