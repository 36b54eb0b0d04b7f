#include "scheduling/job.h"

#include <gtest/gtest.h>

#include <set>

namespace octavo::scheduling {
namespace {

constexpr JobState kStates[] = {JobState::kQueued,    JobState::kRunning, JobState::kParked,
                                JobState::kSucceeded, JobState::kFailed,  JobState::kCancelled};

TEST(Job, nothing_moves_from_a_final_state) {
  for (const JobState from : kStates) {
    for (const JobState to : kStates) {
      EXPECT_FALSE(is_final(from) && may_move(from, to)) << job_state_name(from) << " " << job_state_name(to);
    }
  }
}

TEST(Job, only_a_running_job_succeeds_or_fails) {
  for (const JobState from : kStates) {
    EXPECT_EQ(may_move(from, JobState::kSucceeded), from == JobState::kRunning);
    EXPECT_EQ(may_move(from, JobState::kFailed), from == JobState::kRunning);
  }
}

TEST(Job, state_names_are_distinct) {
  std::set<std::string_view> names;
  for (const JobState state : kStates) names.insert(job_state_name(state));
  EXPECT_EQ(names.size(), std::size(kStates));
}

TEST(Job, moves_stamp_the_first_start_and_the_end) {
  const Clock::TimePoint t0{std::chrono::seconds(1)};
  Job job;
  job.move_to(JobState::kRunning, t0);
  job.move_to(JobState::kQueued, t0 + std::chrono::seconds(1));
  job.move_to(JobState::kRunning, t0 + std::chrono::seconds(2));
  job.move_to(JobState::kSucceeded, t0 + std::chrono::seconds(3));
  EXPECT_EQ(job.started_at, t0);
  EXPECT_EQ(job.finished_at, t0 + std::chrono::seconds(3));
}

TEST(Job, an_illegal_move_is_a_check_failure_and_changes_nothing) {
  Job job;
  EXPECT_THROW(job.move_to(JobState::kSucceeded, {}), CheckFailure);
  EXPECT_EQ(job.state(), JobState::kQueued);
}

}  // namespace
}  // namespace octavo::scheduling
