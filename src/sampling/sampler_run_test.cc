#include "sampling/sampler_run.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <limits>
#include <new>

#include "sampling/schedule.h"

namespace {
std::atomic<std::int64_t> allocation_count{0};
}  // namespace

// Counts every allocation of the test program. Never inlined: gcc would take malloc and delete for a mismatch.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  ++allocation_count;
  if (void* memory = std::malloc(bytes > 0 ? bytes : 1)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace octavo::sampling {
namespace {

struct Machine {
  explicit Machine(int threads = 0)
      : device(device::create_cpu_device(threads)), stream(device->create_stream()), context(*device, *stream, arena) {}
  std::unique_ptr<device::Device> device;
  std::unique_ptr<device::Stream> stream;
  device::Arena arena;
  device::ExecutionContext context;
};

/// A model that bends: velocity = 0.8 x + 0.1 sigma.
void curved_velocity(const TensorView& latents, float sigma, const TensorView& out) {
  for (std::int64_t i = 0; i < out.element_count(); ++i) out.f32()[i] = 0.8f * latents.f32()[i] + 0.1f * sigma;
}

/// Uses everything a sampler may: both predictions, history of two steps, workspace and fresh noise.
void restless_step(SamplerVerbs& verbs, const SamplerStep& step) {
  verbs.denoise(step.latents, step.sigma(), Prediction::kDenoised, step.workspace[0]);
  verbs.denoise(step.latents, step.sigma(), Prediction::kVelocity, step.workspace[1]);
  const float dt = step.next_sigma() - step.sigma();
  verbs.lincomb({{1.0f, step.latents}, {dt, step.workspace[1]}, {0.05f, step.history[0]}, {0.01f, step.history[1]}},
                step.latents);
  verbs.lincomb({{1.0f, step.history[0]}}, step.history[1]);
  verbs.lincomb({{1.0f, step.workspace[0]}}, step.history[0]);
  verbs.noise(step.workspace[1]);
  verbs.lincomb({{1.0f, step.latents}, {0.1f * step.next_sigma(), step.workspace[1]}}, step.latents);
}
const SamplerRow kRestless = {.name = "restless",
                              .label = "Restless",
                              .aliases = {},
                              .default_schedule = "normal",
                              .history_count = 2,
                              .workspace_count = 2,
                              .uses_eta = true,
                              .step = restless_step,
                              .model_sigmas = nullptr};

/// Every row of the table, and the one above.
std::vector<const SamplerRow*> all_rows() {
  std::vector<const SamplerRow*> rows = {&kRestless};
  for (const SamplerRow& row : sampler_rows()) rows.push_back(&row);
  return rows;
}

SamplerState start(const SamplerRow& row, int steps, const Shape& shape, std::int64_t seed = 5,
                   const SamplerOptions& options = {}) {
  std::vector<NoiseOptions> pictures(static_cast<std::size_t>(shape[0]));
  for (std::size_t i = 0; i < pictures.size(); ++i) pictures[i].seed = seed + static_cast<std::int64_t>(i);
  return initial_state(row, make_schedule(*find_schedule("").value(), steps), options, shape, pictures);
}

SamplerState finish(Machine& machine, const SamplerRow& row, const SamplerState& state) {
  SamplerRun run = SamplerRun::create(*machine.device, *machine.stream, row, state).value();
  while (!run.finished()) run.advance(machine.context, curved_velocity);
  return run.save(machine.context);
}

TEST(SamplerRun, parked_at_any_step_and_resumed_from_bytes_ends_bit_for_bit_the_same) {
  constexpr int kSteps = 6;
  for (const SamplerRow* row : all_rows()) {
    Machine machine;
    // 3 elements a picture: the noise verb's double-precision path, whose cached half must survive parking too.
    for (const Shape& shape : {Shape{2, 16, 4, 6}, Shape{2, 1, 1, 3}}) {
      const SamplerState begin = start(*row, kSteps, shape);
      const SamplerState expected = finish(machine, *row, begin);
      for (int parked_at = 0; parked_at <= kSteps; ++parked_at) {
        SamplerRun first = SamplerRun::create(*machine.device, *machine.stream, *row, begin).value();
        for (int i = 0; i < parked_at; ++i) first.advance(machine.context, curved_velocity);
        const std::vector<std::byte> bytes = first.save(machine.context).to_bytes();
        Machine other(1);
        EXPECT_TRUE(finish(other, *row, SamplerState::from_bytes(bytes).value()) == expected) << row->name << parked_at;
      }
    }
  }
}

TEST(SamplerRun, a_picture_does_not_depend_on_its_neighbours) {
  for (const SamplerRow* row : all_rows()) {
    Machine machine;
    const SamplerState three = finish(machine, *row, start(*row, 5, Shape{3, 16, 4, 6}, 10));
    for (int image = 0; image < 3; ++image) {
      const SamplerState alone = finish(machine, *row, start(*row, 5, Shape{1, 16, 4, 6}, 10 + image));
      EXPECT_TRUE(std::equal(alone.latents.begin(), alone.latents.end(), three.latents.begin() + image * 384))
          << row->name << image;
    }
  }
}

TEST(SamplerRun, denoised_is_latents_minus_sigma_times_velocity) {
  static std::vector<float> seen;  // a step function has no closure
  const SamplerRow row = {.name = "peek",
                          .label = "",
                          .aliases = {},
                          .default_schedule = "normal",
                          .history_count = 0,
                          .workspace_count = 1,
                          .step =
                              [](SamplerVerbs& verbs, const SamplerStep& step) {
                                verbs.denoise(step.latents, step.sigma(), Prediction::kDenoised, step.workspace[0]);
                                seen.assign(step.workspace[0].f32(), step.workspace[0].f32() + 16);
                              },
                          .model_sigmas = nullptr};
  Machine machine;
  const SamplerState state = start(row, 2, Shape{1, 16, 1, 1});
  SamplerRun run = SamplerRun::create(*machine.device, *machine.stream, row, state).value();
  run.advance(machine.context, curved_velocity);
  for (std::size_t i = 0; i < 16; ++i) {
    const volatile float velocity = 0.8f * state.latents[i] + 0.1f;
    EXPECT_EQ(seen[i], state.latents[i] - velocity);  // sigma is 1
  }
}

TEST(SamplerRun, a_step_allocates_nothing) {
  for (const SamplerRow* row : all_rows()) {
    Machine machine;
    SamplerRun run =
        SamplerRun::create(*machine.device, *machine.stream, *row, start(*row, 8, Shape{2, 16, 32, 32})).value();
    const VelocityFunction velocity = curved_velocity;
    run.advance(machine.context, velocity);  // the first step may set up threads
    const std::int64_t before = allocation_count;
    while (!run.finished()) run.advance(machine.context, velocity);
    EXPECT_EQ(allocation_count - before, 0) << row->name;
  }
}

TEST(SamplerRun, a_state_of_another_sampler_or_shape_is_refused) {
  Machine machine;
  const SamplerRow& euler = *find_sampler("euler").value();
  const auto code = [&](const SamplerState& state) {
    return SamplerRun::create(*machine.device, *machine.stream, euler, state).status().code();
  };
  const SamplerState good = start(euler, 3, Shape{1, 16, 2, 2});
  EXPECT_EQ(code(good), ErrorCode::kOk);
  EXPECT_EQ(code(start(kRestless, 3, Shape{1, 16, 2, 2})), ErrorCode::kDataCorruption);
  SamplerState history = good;
  history.history.emplace_back(64, 0.0f);
  EXPECT_EQ(code(history), ErrorCode::kDataCorruption);
  SamplerState latents = good;
  latents.latents.resize(3);
  EXPECT_EQ(code(latents), ErrorCode::kDataCorruption);
  SamplerState sources = good;
  sources.noise.clear();
  EXPECT_EQ(code(sources), ErrorCode::kDataCorruption);
}

TEST(SamplerRun, a_finished_run_does_not_step) {
  Machine machine;
  const SamplerRow& euler = *find_sampler("euler").value();
  SamplerRun run =
      SamplerRun::create(*machine.device, *machine.stream, euler, start(euler, 1, Shape{1, 1, 1, 1})).value();
  run.advance(machine.context, curved_velocity);
  EXPECT_TRUE(run.finished());
  EXPECT_THROW(run.advance(machine.context, curved_velocity), CheckFailure);
}

}  // namespace
}  // namespace octavo::sampling
