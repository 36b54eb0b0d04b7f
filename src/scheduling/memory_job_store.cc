#include "scheduling/memory_job_store.h"

#include <algorithm>
#include <cmath>

#include "base/ids.h"
#include "base/log.h"
#include "telemetry/metrics.h"

namespace octavo::scheduling {
namespace {

/// Weight of the newest run in the moving average that Retry-After is made of.
constexpr double kNewestRunWeight = 0.3;
constexpr int kMaxRetryAfterSeconds = 600;

std::string_view outcome_of(const Job& job) {
  if (job.state() == JobState::kSucceeded) return job.result->interrupted ? "interrupted" : "succeeded";
  return job_state_name(job.state());
}

}  // namespace

MemoryJobStore::MemoryJobStore(const JobStoreOptions& options, const Clock& clock, telemetry::Metrics* metrics)
    : options_(options), clock_(clock), metrics_(metrics) {}

Result<std::string> MemoryJobStore::submit(generation::GenerationRequest request, std::string tenant) {
  const Lock lock(mutex_);
  Status refusal;
  if (closed_) {
    refusal = unavailable("server", "is shutting down");
  } else if (queue_.size() >= options_.queue_limit) {
    refusal = resource_exhausted("queue", fmt::format("{} jobs are waiting already; try again later", queue_.size()));
  }
  if (!refusal.ok()) {
    if (metrics_ != nullptr) metrics_->add(telemetry::metric::kJobs, {"rejected"});
    return refusal;
  }
  Entry entry;
  entry.job.id = random_id();
  entry.job.tenant = std::move(tenant);
  entry.job.request = std::move(request);
  entry.job.submitted_at = clock_.now();
  const std::string id = entry.job.id;
  jobs_.emplace(id, std::move(entry));
  queue_.push_back(id);
  publish_figures();
  work_arrived_.notify_one();
  return id;
}

Status MemoryJobStore::on_finished(const std::string& job_id, Finished finished) {
  std::shared_ptr<const Job> ended;
  {
    const Lock lock(mutex_);
    OCTAVO_ASSIGN_OR_RETURN(Entry * entry, find(job_id));
    if (!is_final(entry->job.state())) {
      entry->watchers.push_back(std::move(finished));
      return {};
    }
    ended = std::make_shared<const Job>(entry->job);
  }
  notify({{ended, {std::move(finished)}}});
  return {};
}

Status MemoryJobStore::cancel(const std::string& job_id) {
  std::vector<Ended> ended;
  {
    const Lock lock(mutex_);
    OCTAVO_ASSIGN_OR_RETURN(Entry * entry, find(job_id));
    cancel_entry(*entry, ended);
    publish_figures();
  }
  notify(ended);
  return {};
}

Status MemoryJobStore::interrupt(const std::string& job_id) {
  const Lock lock(mutex_);
  OCTAVO_ASSIGN_OR_RETURN(Entry * entry, find(job_id));
  if (entry->job.state() != JobState::kRunning) {
    return failed_precondition("job", fmt::format("is {}, not running", job_state_name(entry->job.state())));
  }
  entry->job.cancel.cancel();
  return {};
}

Result<Job> MemoryJobStore::get(const std::string& job_id) const {
  const Lock lock(mutex_);
  const auto found = jobs_.find(job_id);
  if (found == jobs_.end()) return not_found("job", fmt::format("{} is unknown", job_id));
  return found->second.job;
}

std::optional<std::size_t> MemoryJobStore::queue_position(const std::string& job_id) const {
  const Lock lock(mutex_);
  const auto found = std::find(queue_.begin(), queue_.end(), job_id);
  if (found == queue_.end()) return std::nullopt;
  return static_cast<std::size_t>(found - queue_.begin());
}

std::vector<Job> MemoryJobStore::running() const {
  std::vector<Job> jobs;
  {
    const Lock lock(mutex_);
    for (const auto& [id, entry] : jobs_) {
      if (entry.job.state() == JobState::kRunning) jobs.push_back(entry.job);
    }
  }
  std::sort(jobs.begin(), jobs.end(), [](const Job& a, const Job& b) { return a.started_at < b.started_at; });
  return jobs;
}

QueueFigures MemoryJobStore::figures() const {
  const Lock lock(mutex_);
  QueueFigures figures;
  figures.waiting = queue_.size();
  figures.running = running_count();
  const double backlog = mean_run_seconds_ * static_cast<double>(figures.waiting + figures.running);
  figures.retry_after_seconds = static_cast<int>(std::clamp(std::ceil(backlog), 1.0, double{kMaxRetryAfterSeconds}));
  return figures;
}

void MemoryJobStore::forget(const std::string& job_id) {
  const Lock lock(mutex_);
  const auto found = jobs_.find(job_id);
  if (found == jobs_.end() || !is_final(found->second.job.state())) return;
  std::erase(finished_, job_id);
  jobs_.erase(found);
}

void MemoryJobStore::close() {
  const Lock lock(mutex_);
  closed_ = true;
  work_arrived_.notify_all();
}

void MemoryJobStore::cancel_all() {
  std::vector<Ended> ended;
  {
    const Lock lock(mutex_);
    std::vector<std::string> ids;  // ending a job may forget others
    for (const auto& [id, entry] : jobs_) ids.push_back(id);
    for (const std::string& id : ids) {
      if (const auto found = jobs_.find(id); found != jobs_.end()) cancel_entry(found->second, ended);
    }
    publish_figures();
  }
  notify(ended);
}

Result<std::optional<Claim>> MemoryJobStore::claim(const std::string& worker, Clock::Duration wait) {
  const auto give_up_at = std::chrono::steady_clock::now() + wait;
  Lock lock(mutex_);
  for (;;) {
    std::vector<Ended> ended;
    reclaim_expired(ended);
    if (!ended.empty()) {
      lock.unlock();
      notify(ended);
      lock.lock();
      continue;
    }
    if (!queue_.empty()) break;
    if (closed_ && running_count() == 0) return unavailable("queue", "is closed and empty");
    auto wake_at = give_up_at;
    for (const auto& [id, entry] : jobs_) {
      if (entry.job.state() != JobState::kRunning) continue;
      wake_at = std::min(wake_at, std::chrono::steady_clock::now() + (entry.job.lease_until - clock_.now()));
    }
    if (std::chrono::steady_clock::now() >= give_up_at) return std::optional<Claim>();
    work_arrived_.wait_until(lock, wake_at);
  }
  Job& job = jobs_.at(queue_.front()).job;
  queue_.pop_front();
  const Clock::TimePoint now = clock_.now();
  job.move_to(JobState::kRunning, now);
  job.fence = ++last_fence_;
  job.lease_until = now + options_.lease;
  ++job.attempts;
  Claim claim;
  claim.job_id = job.id;
  claim.fence = job.fence;
  claim.attempt = job.attempts;
  claim.submitted_at = job.submitted_at;
  claim.request = job.request;
  claim.saved_state = std::exchange(job.saved_state, {});
  claim.cancel = job.cancel;
  publish_figures();
  spdlog::debug("job {}: claimed by {}, fence {}", job.id, worker, job.fence);
  return std::optional<Claim>(std::move(claim));
}

Result<HeartbeatReply> MemoryJobStore::heartbeat(const Claim& claim, const generation::Progress& progress) {
  const Lock lock(mutex_);
  OCTAVO_ASSIGN_OR_RETURN(Entry * entry, find_claimed(claim));
  entry->job.progress = progress;
  entry->job.lease_until = clock_.now() + options_.lease;
  return HeartbeatReply{.stop = entry->job.cancel.cancelled()};
}

Status MemoryJobStore::park(const Claim& claim, std::string saved_state) {
  std::vector<Ended> ended;
  {
    const Lock lock(mutex_);
    OCTAVO_ASSIGN_OR_RETURN(Entry * entry, find_claimed(claim));
    Job& job = entry->job;
    if (job.cancel_requested) {
      end(*entry, JobState::kCancelled, cancelled("nobody waits for it"), ended);
    } else {
      job.move_to(JobState::kParked, clock_.now());
      job.saved_state = std::move(saved_state);
      --job.attempts;  // parking is not the worker's failure
      queue_.push_front(job.id);
      work_arrived_.notify_one();
    }
    publish_figures();
  }
  notify(ended);
  return {};
}

Status MemoryJobStore::complete(const Claim& claim, generation::GenerationResult result) {
  std::vector<Ended> ended;
  {
    const Lock lock(mutex_);
    OCTAVO_ASSIGN_OR_RETURN(Entry * entry, find_claimed(claim));
    if (entry->job.cancel_requested && result.interrupted) {
      end(*entry, JobState::kCancelled, cancelled("nobody waits for it"), ended);
    } else {
      entry->job.result = std::make_shared<const generation::GenerationResult>(std::move(result));
      end(*entry, JobState::kSucceeded, {}, ended);
    }
    publish_figures();
  }
  notify(ended);
  return {};
}

Status MemoryJobStore::fail(const Claim& claim, Status error) {
  OCTAVO_CHECK(!error.ok(), "a failed job needs an error");
  std::vector<Ended> ended;
  {
    const Lock lock(mutex_);
    OCTAVO_ASSIGN_OR_RETURN(Entry * entry, find_claimed(claim));
    const JobState state = error.code() == ErrorCode::kCancelled ? JobState::kCancelled : JobState::kFailed;
    end(*entry, state, std::move(error), ended);
    publish_figures();
  }
  notify(ended);
  return {};
}

Result<MemoryJobStore::Entry*> MemoryJobStore::find(const std::string& job_id) {
  const auto found = jobs_.find(job_id);
  if (found == jobs_.end()) return not_found("job", fmt::format("{} is unknown", job_id));
  return &found->second;
}

Result<MemoryJobStore::Entry*> MemoryJobStore::find_claimed(const Claim& claim) {
  const auto found = jobs_.find(claim.job_id);
  if (found == jobs_.end() || found->second.job.state() != JobState::kRunning ||
      found->second.job.fence != claim.fence) {
    return failed_precondition("job", fmt::format("{} is no longer held by claim {}", claim.job_id, claim.fence));
  }
  return &found->second;
}

void MemoryJobStore::end(Entry& entry, JobState state, Status error, std::vector<Ended>& ended) {
  Job& job = entry.job;
  const bool ran = job.state() == JobState::kRunning;
  job.move_to(state, clock_.now());
  job.error = std::move(error);
  job.saved_state.clear();
  if (ran) {
    const double run_seconds = seconds(job.finished_at - job.started_at);
    mean_run_seconds_ = mean_run_seconds_ == 0
                            ? run_seconds
                            : (1 - kNewestRunWeight) * mean_run_seconds_ + kNewestRunWeight * run_seconds;
  }
  if (metrics_ != nullptr) metrics_->add(telemetry::metric::kJobs, {outcome_of(job)});
  ended.push_back({std::make_shared<const Job>(job), std::move(entry.watchers)});
  finished_.push_back(job.id);
  while (finished_.size() > options_.finished_limit) {
    jobs_.erase(finished_.front());
    finished_.pop_front();
  }
  if (closed_) work_arrived_.notify_all();  // a claim may be waiting for the last job to end
}

void MemoryJobStore::cancel_entry(Entry& entry, std::vector<Ended>& ended) {
  Job& job = entry.job;
  if (is_final(job.state())) return;
  job.cancel_requested = true;
  job.cancel.cancel();
  if (job.state() == JobState::kRunning) return;  // its worker looks at the token
  std::erase(queue_, job.id);
  end(entry, JobState::kCancelled, cancelled("cancelled while it waited"), ended);
}

void MemoryJobStore::reclaim_expired(std::vector<Ended>& ended) {
  const Clock::TimePoint now = clock_.now();
  std::vector<std::string> expired;
  for (const auto& [id, entry] : jobs_) {
    if (entry.job.state() == JobState::kRunning && entry.job.lease_until <= now) expired.push_back(id);
  }
  for (const std::string& id : expired) {
    const auto found = jobs_.find(id);
    if (found == jobs_.end()) continue;
    Entry& entry = found->second;
    Job& job = entry.job;
    if (job.cancel_requested) {
      end(entry, JobState::kCancelled, cancelled("its worker was lost, and nobody waits for it"), ended);
    } else if (job.attempts >= options_.max_attempts) {
      end(entry, JobState::kFailed,
          internal_error("worker", fmt::format("was lost {} times over this job", job.attempts)), ended);
    } else {
      job.move_to(JobState::kQueued, now);
      queue_.push_front(id);
    }
  }
  if (!expired.empty()) publish_figures();
}

std::size_t MemoryJobStore::running_count() const {
  return static_cast<std::size_t>(std::count_if(
      jobs_.begin(), jobs_.end(), [](const auto& pair) { return pair.second.job.state() == JobState::kRunning; }));
}

void MemoryJobStore::publish_figures() const {
  if (metrics_ == nullptr) return;
  metrics_->set(telemetry::metric::kQueueLength, {}, static_cast<double>(queue_.size()));
  metrics_->set(telemetry::metric::kJobsRunning, {}, static_cast<double>(running_count()));
}

void MemoryJobStore::notify(const std::vector<Ended>& ended) {
  for (const Ended& each : ended) {
    for (const Finished& watcher : each.watchers) watcher(*each.job);
  }
}

}  // namespace octavo::scheduling
