// Job: one generation call on its way through the queue. A plain value; its store guards it.
//
//   queued -> running -> succeeded | failed | cancelled
//      ^        |  ^
//      +--------+  |      lease lost: back to the front of the queue
//               v  |
//              parked     given back at a step border with its saved state; claimed again later
//
// queued and parked jobs can be cancelled at once; a running one when its worker next looks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/status.h"
#include "generation/generation.h"

namespace octavo::scheduling {

enum class JobState { kQueued, kRunning, kParked, kSucceeded, kFailed, kCancelled };

/// Lower-case name ("queued"), stable.
std::string_view job_state_name(JobState state);
/// The table of legal moves.
bool may_move(JobState from, JobState to);
/// Succeeded, failed, cancelled: nothing moves from here.
bool is_final(JobState state);

class Job {
 public:
  std::string id;
  std::string tenant;                     // "" = the only one
  generation::GenerationRequest request;  // resolved
  generation::Progress progress;          // as last reported
  generation::CancelToken cancel;         // shared with the worker that runs it
  bool cancel_requested = false;          // nobody wants the result any more (interrupt keeps it)
  int attempts = 0;                       // claims that did not end by parking
  std::uint64_t fence = 0;                // number of the latest claim; older claims may not touch the job
  Clock::TimePoint lease_until{};         // running only
  Clock::TimePoint submitted_at{};
  Clock::TimePoint started_at{};                               // first claim
  Clock::TimePoint finished_at{};                              // final states only
  std::string saved_state;                                     // parked: what the worker needs to go on
  std::shared_ptr<const generation::GenerationResult> result;  // succeeded only
  Status error;                                                // failed and cancelled: why

  JobState state() const { return state_; }
  /// The only way to change the state; stamps started_at and finished_at. An illegal move is a CheckFailure.
  void move_to(JobState to, Clock::TimePoint now);

 private:
  JobState state_ = JobState::kQueued;
};

}  // namespace octavo::scheduling
