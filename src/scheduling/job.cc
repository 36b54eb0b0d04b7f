#include "scheduling/job.h"

#include <array>

namespace octavo::scheduling {
namespace {

struct Move {
  JobState from;
  JobState to;
};

constexpr std::array kMoves = {
    Move{JobState::kQueued, JobState::kRunning},     // claimed
    Move{JobState::kQueued, JobState::kCancelled},   // nobody waits for it any more
    Move{JobState::kRunning, JobState::kSucceeded},  // drawn, or interrupted with what there is
    Move{JobState::kRunning, JobState::kFailed},     // the worker said so, or too many workers were lost over it
    Move{JobState::kRunning, JobState::kCancelled},  // stopped at a step border
    Move{JobState::kRunning, JobState::kQueued},     // its lease ran out
    Move{JobState::kRunning, JobState::kParked},     // made room for another
    Move{JobState::kParked, JobState::kRunning},     // claimed again
    Move{JobState::kParked, JobState::kCancelled},
};

}  // namespace

std::string_view job_state_name(JobState state) {
  switch (state) {
    case JobState::kQueued:
      return "queued";
    case JobState::kRunning:
      return "running";
    case JobState::kParked:
      return "parked";
    case JobState::kSucceeded:
      return "succeeded";
    case JobState::kFailed:
      return "failed";
    case JobState::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

bool may_move(JobState from, JobState to) {
  for (const Move& move : kMoves) {
    if (move.from == from && move.to == to) return true;
  }
  return false;
}

bool is_final(JobState state) {
  return state == JobState::kSucceeded || state == JobState::kFailed || state == JobState::kCancelled;
}

void Job::move_to(JobState to, Clock::TimePoint now) {
  OCTAVO_CHECK(may_move(state_, to), "job {} cannot go from {} to {}", id, job_state_name(state_), job_state_name(to));
  if (to == JobState::kRunning && started_at == Clock::TimePoint{}) started_at = now;
  if (is_final(to)) finished_at = now;
  state_ = to;
}

}  // namespace octavo::scheduling
