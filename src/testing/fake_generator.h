// FakeGenerator: a Generator without a model. Its pictures are made of the seed and the prompt, so that a test can tell
// whose picture it holds; its steps can be slow, stopped at a gate, or fail.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>

#include "generation/generation.h"

namespace octavo::testing {

class FakeGenerator final : public generation::Generator {
 public:
  FakeGenerator();
  const generation::Capabilities& capabilities() const override { return capabilities_; }
  /// Prompts choose what happens: "fail: x" is kInternal "x" after the first step, "throw: x" throws
  /// std::runtime_error("x"), "lost: x" throws generation::GeneratorLost("x"), anything else draws.
  Result<generation::GenerationResult> generate(const generation::GenerationRequest& request,
                                                const generation::RunControl& control) override;

  /// The picture generate() draws for these.
  static image::Image picture(const generation::GenerationRequest& request, std::int64_t seed);

  /// Sleeps this long in each step (for load tests; unit tests use the gate).
  void set_step_time(Clock::Duration duration) { step_time_ = duration; }
  /// Closed: each run stops after its first step until the gate opens or the run is cancelled.
  void close_gate();
  void open_gate();
  /// Blocks until a run stands at the closed gate.
  void wait_until_at_gate();
  int runs_started() const { return runs_started_; }

 private:
  bool pass_gate(const generation::CancelToken& cancel);

  generation::Capabilities capabilities_;
  std::atomic<Clock::Duration> step_time_{Clock::Duration::zero()};
  std::atomic<int> runs_started_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
  bool gate_open_ = true;
  bool at_gate_ = false;
};

}  // namespace octavo::testing
