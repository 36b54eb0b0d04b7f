#include "testing/fake_generator.h"

#include <stdexcept>
#include <string_view>
#include <thread>

namespace octavo::testing {
namespace {

constexpr std::string_view kFail = "fail: ";
constexpr std::string_view kThrow = "throw: ";
constexpr std::string_view kLost = "lost: ";
/// The gate looks at the run's cancel flag this often; a test waits at most this long for a cancelled run.
constexpr std::chrono::milliseconds kGatePoll{2};

}  // namespace

FakeGenerator::FakeGenerator() {
  capabilities_.model_name = "fake";
  capabilities_.model_hash = "0123456789";
  capabilities_.samplers = {
      {.name = "euler", .label = "Euler", .aliases = {"k_euler"}, .schedule = "normal"},
      {.name = "euler_ancestral", .label = "Euler a", .aliases = {}, .schedule = "normal", .uses_eta = true},
      {.name = "dpmpp_2m", .label = "DPM++ 2M", .aliases = {}, .schedule = "normal"}};
  capabilities_.schedules = {{.name = "normal", .label = "Normal", .aliases = {}, .schedule = ""},
                             {.name = "sgm_uniform", .label = "SGM Uniform", .aliases = {"sgmuniform"}, .schedule = ""},
                             {.name = "karras", .label = "Karras", .aliases = {}, .schedule = ""}};
}

image::Image FakeGenerator::picture(const generation::GenerationRequest& request, std::int64_t seed) {
  image::Image image{request.width, request.height, 3, {}};
  image.pixels.resize(image.byte_count());
  // FNV-1a over the prompt, then a linear congruence from both: cheap, and different for each.
  std::uint64_t state = 14695981039346656037u;
  for (const char c : request.prompt) state = (state ^ static_cast<std::uint8_t>(c)) * 1099511628211u;
  state += static_cast<std::uint64_t>(seed);
  for (std::uint8_t& value : image.pixels) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    value = static_cast<std::uint8_t>(state >> 60);  // 16 levels: compresses like a picture
  }
  return image;
}

Result<generation::GenerationResult> FakeGenerator::generate(const generation::GenerationRequest& request,
                                                             const generation::RunControl& control) {
  ++runs_started_;
  if (request.prompt.starts_with(kThrow)) throw std::runtime_error(request.prompt.substr(kThrow.size()));
  if (request.prompt.starts_with(kLost)) throw generation::GeneratorLost(request.prompt.substr(kLost.size()));
  generation::GenerationResult result;
  result.request = request;
  result.stage_seconds = {{"encode_text", 0.001}, {"denoise", 0.01}, {"decode", 0.002}, {"total", 0.013}};
  generation::Progress progress;
  progress.image_count = request.image_count;
  progress.steps = request.steps;
  progress.stage = "denoise";
  for (int i = 0; i < request.image_count; ++i) {
    progress.image_index = i;
    for (int step = 1; step <= request.steps; ++step) {
      if (step_time_.load() > Clock::Duration::zero()) std::this_thread::sleep_for(step_time_.load());
      progress.step = step;
      if (control.on_progress) control.on_progress(progress);
      const bool go_on = step > 1 || pass_gate(control.cancel);
      if (request.prompt.starts_with(kFail)) return internal_error("latents", request.prompt.substr(kFail.size()));
      if (control.deadline && system_clock().now() > *control.deadline) {
        return deadline_exceeded("job", "took longer than it may");
      }
      if (!go_on || control.cancel.cancelled()) {
        if (!request.keep_partial) return cancelled("cancelled");
        result.interrupted = true;
        return result;
      }
    }
    const generation::ImageSeeds seeds = generation::image_seeds(request, i);
    result.images.push_back({picture(request, seeds.seed), seeds.seed});
  }
  return result;
}

void FakeGenerator::close_gate() {
  const std::lock_guard lock(mutex_);
  gate_open_ = false;
}

void FakeGenerator::open_gate() {
  const std::lock_guard lock(mutex_);
  gate_open_ = true;
  changed_.notify_all();
}

void FakeGenerator::wait_until_at_gate() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return at_gate_; });
}

bool FakeGenerator::pass_gate(const generation::CancelToken& cancel) {
  std::unique_lock lock(mutex_);
  while (!gate_open_ && !cancel.cancelled()) {
    at_gate_ = true;
    changed_.notify_all();
    changed_.wait_for(lock, kGatePoll);
  }
  at_gate_ = false;
  return !cancel.cancelled();
}

}  // namespace octavo::testing
