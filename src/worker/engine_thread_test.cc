#include "worker/engine_thread.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "scheduling/memory_job_store.h"
#include "testing/fake_generator.h"

namespace octavo::worker {
namespace {

using scheduling::Job;
using scheduling::JobState;
using ::testing::HasSubstr;

class EngineThreadTest : public ::testing::Test {
 protected:
  generation::GenerationRequest request(const std::string& prompt, int image_count = 1) {
    generation::GenerationRequest request;
    request.prompt = prompt;
    request.seed = 5;
    request.image_count = image_count;
    request.steps = 4;
    return generation::resolve(request, generator.capabilities()).value();
  }
  std::string submit(const generation::GenerationRequest& what) { return store.submit(what).value(); }
  Job wait_for(const std::string& id) {
    std::promise<Job> ended;
    OCTAVO_CHECK(store.on_finished(id, [&](const Job& job) { ended.set_value(job); }).ok(), "unknown job");
    return ended.get_future().get();
  }

  testing::FakeGenerator generator;
  telemetry::Metrics metrics;
  scheduling::MemoryJobStore store{{}, system_clock(), &metrics};
};

TEST_F(EngineThreadTest, draws_what_is_submitted) {
  EngineThread engine(store, generator, metrics);
  const Job job = wait_for(submit(request("a cat", 2)));
  ASSERT_EQ(job.state(), JobState::kSucceeded);
  ASSERT_EQ(job.result->images.size(), 2u);
  EXPECT_EQ(job.result->images[1].seed, 6);
  EXPECT_EQ(job.result->images[1].image.pixels, generator.picture(request("a cat"), 6).pixels);
}

TEST_F(EngineThreadTest, errors_and_exceptions_end_the_job_and_the_next_is_served) {
  EngineThread engine(store, generator, metrics);
  const Job failed = wait_for(submit(request("fail: NaN after step 1")));
  EXPECT_EQ(failed.state(), JobState::kFailed);
  EXPECT_EQ(failed.error.message(), "NaN after step 1");
  const Job thrown = wait_for(submit(request("throw: lost the device")));
  EXPECT_EQ(thrown.state(), JobState::kFailed);
  EXPECT_EQ(thrown.error.code(), ErrorCode::kInternal);
  EXPECT_THAT(thrown.error.message(), HasSubstr("lost the device"));
  EXPECT_EQ(wait_for(submit(request("a cat"))).state(), JobState::kSucceeded);
}

TEST_F(EngineThreadTest, a_lost_generator_ends_its_job_and_is_not_asked_for_another) {
  const std::string id = submit(request("lost: the GPU fell off the bus")), next = submit(request("a cat"));
  std::promise<std::string> lost;
  EngineOptions options;
  options.on_lost = [&](const std::string& why) { lost.set_value(why); };
  EngineThread engine(store, generator, metrics, options);
  const Job job = wait_for(id);
  EXPECT_EQ(job.state(), JobState::kFailed);
  EXPECT_EQ(job.error.code(), ErrorCode::kUnavailable);
  EXPECT_EQ(job.error.message(), "the GPU fell off the bus");
  EXPECT_EQ(lost.get_future().get(), "the GPU fell off the bus");
  store.close();
  engine.join();  // would draw what waits, if it could draw
  EXPECT_EQ(generator.runs_started(), 1);
  EXPECT_EQ(store.get(next)->state(), JobState::kQueued);
}

TEST_F(EngineThreadTest, progress_of_the_running_job_is_seen) {
  generator.close_gate();
  EngineThread engine(store, generator, metrics);
  const std::string id = submit(request("a cat"));
  generator.wait_until_at_gate();
  const auto running = store.running();
  ASSERT_EQ(running.size(), 1u);
  EXPECT_EQ(running[0].id, id);
  EXPECT_EQ(running[0].progress.step, 1);
  EXPECT_EQ(running[0].progress.steps, 4);
  generator.open_gate();
  EXPECT_EQ(wait_for(id).state(), JobState::kSucceeded);
}

TEST_F(EngineThreadTest, cancelling_stops_a_running_job_between_steps) {
  generator.close_gate();
  EngineThread engine(store, generator, metrics);
  const std::string id = submit(request("a cat"));
  generator.wait_until_at_gate();
  ASSERT_TRUE(store.cancel(id).ok());
  EXPECT_EQ(wait_for(id).state(), JobState::kCancelled);
}

TEST_F(EngineThreadTest, interrupting_a_job_that_keeps_parts_succeeds_with_fewer_pictures) {
  generator.close_gate();
  EngineThread engine(store, generator, metrics);
  auto partial = request("a cat", 3);
  partial.keep_partial = true;
  const std::string id = submit(partial);
  generator.wait_until_at_gate();
  ASSERT_TRUE(store.interrupt(id).ok());
  const Job job = wait_for(id);
  EXPECT_EQ(job.state(), JobState::kSucceeded);
  EXPECT_TRUE(job.result->interrupted);
  EXPECT_LT(job.result->images.size(), 3u);
}

TEST_F(EngineThreadTest, a_job_interrupted_before_its_first_step_still_keeps_its_promise) {
  auto partial = request("a cat");
  partial.keep_partial = true;
  const std::string id = submit(partial);
  store.get(id)->cancel.cancel();  // as an interrupt does that arrives between the claim and the first step
  EngineThread engine(store, generator, metrics);
  const Job job = wait_for(id);
  EXPECT_EQ(job.state(), JobState::kSucceeded);
  EXPECT_TRUE(job.result->interrupted);
}

TEST_F(EngineThreadTest, a_job_over_its_time_limit_fails) {
  EngineThread engine(store, generator, metrics, {.name = "engine", .job_time_limit = Clock::Duration(-1)});
  const Job job = wait_for(submit(request("a cat")));
  EXPECT_EQ(job.state(), JobState::kFailed);
  EXPECT_EQ(job.error.code(), ErrorCode::kDeadlineExceeded);
}

TEST_F(EngineThreadTest, joining_a_closed_store_draws_what_waits_first) {
  generator.close_gate();
  EngineThread engine(store, generator, metrics);
  const std::string first = submit(request("1")), second = submit(request("2"));
  generator.wait_until_at_gate();
  store.close();
  generator.open_gate();
  engine.join();
  EXPECT_EQ(store.get(first)->state(), JobState::kSucceeded);
  EXPECT_EQ(store.get(second)->state(), JobState::kSucceeded);
}

TEST_F(EngineThreadTest, destruction_cancels_what_runs) {
  generator.close_gate();
  std::string id;
  {
    EngineThread engine(store, generator, metrics);
    id = submit(request("a cat"));
    generator.wait_until_at_gate();
  }
  EXPECT_EQ(store.get(id)->state(), JobState::kCancelled);
}

TEST_F(EngineThreadTest, stages_and_outcomes_are_counted) {
  EngineThread engine(store, generator, metrics);
  wait_for(submit(request("a cat", 2)));
  wait_for(submit(request("fail: x")));
  const std::string text = metrics.exposition();
  for (const char* line :
       {"octavo_stage_seconds_count{stage=\"denoise\"} 1\n", "octavo_stage_seconds_count{stage=\"queue_wait\"} 2\n",
        "octavo_stage_seconds_count{stage=\"total\"} 1\n", "octavo_images_total 2\n",
        "octavo_jobs_total{outcome=\"succeeded\"} 1\n", "octavo_jobs_total{outcome=\"failed\"} 1\n",
        "octavo_queue_length 0\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

}  // namespace
}  // namespace octavo::worker
