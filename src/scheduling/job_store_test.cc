// The contract of JobStore. A new backend adds one line to kBackends.
#include "scheduling/job_store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <set>
#include <thread>

#include "scheduling/memory_job_store.h"
#include "testing/manual_clock.h"

namespace octavo::scheduling {
namespace {

using octavo::testing::ManualClock;
using std::chrono::milliseconds;
using std::chrono::seconds;

struct Backend {
  const char* name;
  std::unique_ptr<JobStore> (*make)(const JobStoreOptions&, const Clock&);
};

const Backend kBackends[] = {
    {"memory",
     [](const JobStoreOptions& options, const Clock& clock) -> std::unique_ptr<JobStore> {
       return std::make_unique<MemoryJobStore>(options, clock);
     }},
};

class JobStoreContract : public ::testing::TestWithParam<Backend> {
 protected:
  void open(const JobStoreOptions& options) { store = GetParam().make(options, clock); }
  void SetUp() override { open({.queue_limit = 3, .lease = seconds(10), .max_attempts = 2, .finished_limit = 4}); }

  std::string submit(const std::string& prompt = "a cat") {
    generation::GenerationRequest request;
    request.prompt = prompt;
    return store->submit(request).value();
  }
  Claim claim() {
    auto claimed = store->claim("worker", {}).value();
    OCTAVO_CHECK(claimed.has_value(), "no job to claim");
    return *claimed;
  }
  JobState state(const std::string& id) { return store->get(id).value().state(); }
  static generation::GenerationResult result_of(const Claim& claim, bool interrupted = false) {
    generation::GenerationResult result;
    result.request = claim.request;
    result.interrupted = interrupted;
    return result;
  }

  ManualClock clock;
  std::unique_ptr<JobStore> store;
};

INSTANTIATE_TEST_SUITE_P(Backends, JobStoreContract, ::testing::ValuesIn(kBackends),
                         [](const auto& parameter) { return std::string(parameter.param.name); });

TEST_P(JobStoreContract, jobs_are_served_in_order_of_arrival) {
  const std::vector<std::string> ids = {submit("1"), submit("2"), submit("3")};
  for (std::size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(store->queue_position(ids[i]), i);
  for (const std::string& id : ids) EXPECT_EQ(claim().job_id, id);
  EXPECT_EQ(store->queue_position(ids[0]), std::nullopt);
}

TEST_P(JobStoreContract, a_job_carries_its_request_to_the_worker_and_its_result_back) {
  const std::string id = submit("a red apple");
  const Claim claimed = claim();
  EXPECT_EQ(claimed.request.prompt, "a red apple");
  EXPECT_EQ(state(id), JobState::kRunning);
  ASSERT_TRUE(store->complete(claimed, result_of(claimed)).ok());
  EXPECT_EQ(state(id), JobState::kSucceeded);
  EXPECT_EQ(store->get(id)->result->request.prompt, "a red apple");
}

TEST_P(JobStoreContract, a_full_queue_refuses_and_says_when_to_come_back) {
  for (int i = 0; i < 3; ++i) submit();
  generation::GenerationRequest request;
  EXPECT_EQ(store->submit(request).status().code(), ErrorCode::kResourceExhausted);
  EXPECT_GE(store->figures().retry_after_seconds, 1);
  const Claim claimed = claim();  // a running job no longer waits
  EXPECT_TRUE(store->submit(request).ok());
  clock.advance(seconds(5));
  ASSERT_TRUE(store->complete(claimed, result_of(claimed)).ok());
  EXPECT_EQ(store->figures().retry_after_seconds, 15);  // three wait, at 5 s each
}

TEST_P(JobStoreContract, claiming_from_an_empty_store_gives_nothing) {
  EXPECT_FALSE(store->claim("worker", {}).value().has_value());
  EXPECT_FALSE(store->claim("worker", milliseconds(1)).value().has_value());
}

TEST_P(JobStoreContract, a_waiting_claim_wakes_for_a_new_job) {
  std::string claimed;
  std::thread worker([&] { claimed = store->claim("worker", seconds(30)).value()->job_id; });
  const std::string id = submit();
  worker.join();
  EXPECT_EQ(claimed, id);
}

TEST_P(JobStoreContract, a_lost_lease_gives_the_job_to_another_worker_and_the_late_one_is_refused) {
  const std::string id = submit();
  const Claim first = claim();
  clock.advance(seconds(10));
  const Claim second = claim();
  EXPECT_EQ(second.job_id, id);
  EXPECT_GT(second.fence, first.fence);
  EXPECT_EQ(second.attempt, 2);
  EXPECT_EQ(store->heartbeat(first, {}).status().code(), ErrorCode::kFailedPrecondition);
  EXPECT_EQ(store->complete(first, result_of(first)).code(), ErrorCode::kFailedPrecondition);
  EXPECT_EQ(store->fail(first, internal_error("x", "y")).code(), ErrorCode::kFailedPrecondition);
  EXPECT_EQ(store->park(first, "s").code(), ErrorCode::kFailedPrecondition);
  EXPECT_TRUE(store->complete(second, result_of(second)).ok());
  EXPECT_EQ(store->complete(second, result_of(second)).code(), ErrorCode::kFailedPrecondition);
}

TEST_P(JobStoreContract, heartbeats_keep_the_lease_and_store_progress) {
  const std::string id = submit();
  const Claim claimed = claim();
  for (int step = 1; step <= 5; ++step) {
    clock.advance(seconds(9));
    generation::Progress progress;
    progress.step = step;
    ASSERT_TRUE(store->heartbeat(claimed, progress).ok());
    EXPECT_FALSE(store->claim("other", {}).value().has_value());
  }
  EXPECT_EQ(store->get(id)->progress.step, 5);
}

TEST_P(JobStoreContract, a_late_worker_whose_job_nobody_took_may_still_finish) {
  const std::string id = submit();
  const Claim claimed = claim();
  clock.advance(seconds(60));
  EXPECT_TRUE(store->complete(claimed, result_of(claimed)).ok());
  EXPECT_EQ(state(id), JobState::kSucceeded);
}

TEST_P(JobStoreContract, a_job_that_loses_every_worker_fails) {
  const std::string id = submit();
  claim();
  clock.advance(seconds(10));
  claim();
  clock.advance(seconds(10));
  EXPECT_FALSE(store->claim("worker", {}).value().has_value());
  EXPECT_EQ(state(id), JobState::kFailed);
  EXPECT_NE(store->get(id)->error.message().find("lost 2 times"), std::string::npos);
}

TEST_P(JobStoreContract, a_parked_job_comes_back_first_with_its_state) {
  const std::string id = submit("parked");
  submit("other");
  ASSERT_TRUE(store->park(claim(), "step 7").ok());
  EXPECT_EQ(state(id), JobState::kParked);
  const Claim again = claim();
  EXPECT_EQ(again.job_id, id);
  EXPECT_EQ(again.saved_state, "step 7");
  EXPECT_EQ(again.attempt, 1);
}

TEST_P(JobStoreContract, cancelling_a_waiting_job_ends_it_at_once) {
  const std::string id = submit();
  const std::string next = submit();
  ASSERT_TRUE(store->cancel(id).ok());
  EXPECT_EQ(state(id), JobState::kCancelled);
  EXPECT_EQ(claim().job_id, next);
}

TEST_P(JobStoreContract, cancelling_a_running_job_stops_it_at_the_next_heartbeat) {
  const std::string id = submit();
  const Claim claimed = claim();
  EXPECT_FALSE(store->heartbeat(claimed, {})->stop);
  ASSERT_TRUE(store->cancel(id).ok());
  EXPECT_EQ(state(id), JobState::kRunning);
  EXPECT_TRUE(store->heartbeat(claimed, {})->stop);
  EXPECT_TRUE(claimed.cancel.cancelled());
  ASSERT_TRUE(store->complete(claimed, result_of(claimed, true)).ok());
  EXPECT_EQ(state(id), JobState::kCancelled);
  EXPECT_EQ(store->get(id)->result, nullptr);
}

TEST_P(JobStoreContract, a_cancelled_job_that_is_parked_ends) {
  const std::string id = submit();
  const Claim claimed = claim();
  ASSERT_TRUE(store->cancel(id).ok());
  ASSERT_TRUE(store->park(claimed, "state").ok());
  EXPECT_EQ(state(id), JobState::kCancelled);
}

TEST_P(JobStoreContract, a_cancelled_job_whose_worker_is_lost_is_not_run_again) {
  const std::string id = submit();
  claim();
  ASSERT_TRUE(store->cancel(id).ok());
  clock.advance(seconds(10));
  EXPECT_FALSE(store->claim("worker", {}).value().has_value());
  EXPECT_EQ(state(id), JobState::kCancelled);
}

TEST_P(JobStoreContract, interrupting_keeps_the_part_that_is_drawn) {
  const std::string id = submit();
  EXPECT_EQ(store->interrupt(id).code(), ErrorCode::kFailedPrecondition);
  const Claim claimed = claim();
  ASSERT_TRUE(store->interrupt(id).ok());
  EXPECT_TRUE(store->heartbeat(claimed, {})->stop);
  ASSERT_TRUE(store->complete(claimed, result_of(claimed, true)).ok());
  EXPECT_EQ(state(id), JobState::kSucceeded);
  EXPECT_TRUE(store->get(id)->result->interrupted);
}

TEST_P(JobStoreContract, a_cancelled_error_ends_as_cancelled_and_others_as_failed) {
  const std::string first = submit(), second = submit();
  ASSERT_TRUE(store->fail(claim(), cancelled("stopped")).ok());
  ASSERT_TRUE(store->fail(claim(), internal_error("latents", "NaN")).ok());
  EXPECT_EQ(state(first), JobState::kCancelled);
  EXPECT_EQ(state(second), JobState::kFailed);
  EXPECT_EQ(store->get(second)->error.to_string(), "latents: NaN");
}

TEST_P(JobStoreContract, watchers_are_told_once_even_when_the_job_has_ended) {
  const std::string id = submit();
  int calls = 0;
  ASSERT_TRUE(store
                  ->on_finished(id,
                                [&](const Job& job) {
                                  ++calls;
                                  EXPECT_EQ(job.state(), JobState::kSucceeded);
                                  EXPECT_TRUE(store->get(job.id).ok());  // no lock is held
                                })
                  .ok());
  const Claim claimed = claim();
  EXPECT_EQ(calls, 0);
  ASSERT_TRUE(store->complete(claimed, result_of(claimed)).ok());
  EXPECT_EQ(calls, 1);
  ASSERT_TRUE(store->on_finished(id, [&](const Job&) { ++calls; }).ok());
  EXPECT_EQ(calls, 2);
}

TEST_P(JobStoreContract, unknown_jobs_are_not_found) {
  EXPECT_EQ(store->get("no").status().code(), ErrorCode::kNotFound);
  EXPECT_EQ(store->cancel("no").code(), ErrorCode::kNotFound);
  EXPECT_EQ(store->interrupt("no").code(), ErrorCode::kNotFound);
  EXPECT_EQ(store->on_finished("no", [](const Job&) {}).code(), ErrorCode::kNotFound);
  store->forget("no");
}

TEST_P(JobStoreContract, ended_jobs_are_forgotten_oldest_first) {
  std::vector<std::string> ids;
  for (int i = 0; i < 6; ++i) {
    ids.push_back(submit());
    const Claim claimed = claim();
    ASSERT_TRUE(store->complete(claimed, result_of(claimed)).ok());
  }
  EXPECT_FALSE(store->get(ids[1]).ok());
  EXPECT_TRUE(store->get(ids[2]).ok());
  store->forget(ids[2]);
  EXPECT_FALSE(store->get(ids[2]).ok());
  const std::string waiting = submit();
  store->forget(waiting);
  EXPECT_TRUE(store->get(waiting).ok());
}

TEST_P(JobStoreContract, a_closed_store_finishes_what_it_has) {
  const std::string id = submit();
  store->close();
  generation::GenerationRequest request;
  EXPECT_EQ(store->submit(request).status().code(), ErrorCode::kUnavailable);
  const Claim claimed = claim();
  EXPECT_EQ(claimed.job_id, id);
  EXPECT_FALSE(store->claim("other", {}).value().has_value());  // the lease of the running one may still run out
  ASSERT_TRUE(store->complete(claimed, result_of(claimed)).ok());
  EXPECT_EQ(store->claim("other", seconds(30)).status().code(), ErrorCode::kUnavailable);
}

TEST_P(JobStoreContract, closing_wakes_a_waiting_claim) {
  std::thread worker([&] { EXPECT_EQ(store->claim("worker", seconds(30)).status().code(), ErrorCode::kUnavailable); });
  store->close();
  worker.join();
}

TEST_P(JobStoreContract, cancel_all_ends_what_waits_and_stops_what_runs) {
  const std::string runs = submit(), waits = submit();
  const Claim claimed = claim();
  store->cancel_all();
  EXPECT_EQ(state(waits), JobState::kCancelled);
  EXPECT_TRUE(claimed.cancel.cancelled());
  EXPECT_EQ(state(runs), JobState::kRunning);
}

TEST_P(JobStoreContract, running_lists_the_longest_running_first) {
  const std::string first = submit(), second = submit();
  claim();
  clock.advance(seconds(1));
  claim();
  const std::vector<Job> jobs = store->running();
  ASSERT_EQ(jobs.size(), 2u);
  EXPECT_EQ(jobs[0].id, first);
  EXPECT_EQ(jobs[1].id, second);
  EXPECT_EQ(store->figures().running, 2u);
}

TEST_P(JobStoreContract, many_threads_run_every_job_once) {
  open({.queue_limit = 1000, .lease = seconds(60), .finished_limit = 1000});
  constexpr int kJobs = 400;
  std::atomic<int> told = 0;
  std::atomic<int> completed = 0;
  std::vector<std::thread> threads;
  for (int w = 0; w < 4; ++w) {
    threads.emplace_back([&] {
      for (;;) {
        auto claimed = store->claim("worker", seconds(30));
        if (!claimed.ok()) return;
        if (!claimed->has_value()) continue;
        (void)store->heartbeat(**claimed, {});
        if (store->complete(**claimed, result_of(**claimed)).ok()) ++completed;
      }
    });
  }
  std::vector<std::thread> clients;
  std::atomic<int> cancelled_count = 0;
  for (int c = 0; c < 4; ++c) {
    clients.emplace_back([&, c] {
      for (int i = 0; i < kJobs / 4; ++i) {
        const std::string id = submit();
        ASSERT_TRUE(store
                        ->on_finished(id,
                                      [&](const Job& job) {
                                        ++told;
                                        if (job.state() == JobState::kCancelled) ++cancelled_count;
                                      })
                        .ok());
        if (i % 10 == c) (void)store->cancel(id);
      }
    });
  }
  for (std::thread& client : clients) client.join();
  store->close();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(told, kJobs);
  EXPECT_EQ(completed + cancelled_count, kJobs);
}

}  // namespace
}  // namespace octavo::scheduling
