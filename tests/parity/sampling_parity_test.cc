// Schedules, noise and Euler steps against tools/reference/record_sampling.py: every bit equal.
#include <gtest/gtest.h>

#include <bit>
#include <string>
#include <vector>

#include "sampling/noise.h"
#include "sampling/sampler_run.h"
#include "sampling/schedule.h"
#include "testing/expect_close.h"
#include "tests/parity/fixture.h"

namespace octavo::parity {
namespace {

std::vector<float> values(const TensorView& view) { return {view.f32(), view.f32() + view.element_count()}; }

/// 64-bit FNV-1a over 32-bit patterns, as the recorder computes it.
std::uint64_t hash_of(std::span<const float> numbers) {
  std::uint64_t hash = 0xCBF29CE484222325u;
  for (const float number : numbers) hash = (hash ^ std::bit_cast<std::uint32_t>(number)) * 0x100000001B3u;
  return hash;
}

struct Recorded {
  double shift;
  std::vector<int> steps;
};

TEST(ScheduleParity, sigmas_and_timesteps_are_diffusers_bit_for_bit) {
  const Fixture fixture("sampling/schedules.safetensors");
  std::vector<int> all(200);
  for (int i = 0; i < 200; ++i) all[static_cast<std::size_t>(i)] = i + 1;
  for (const Recorded& recorded : {Recorded{3.0, all}, Recorded{1.0, {1, 2, 7, 28}}, Recorded{5.0, {1, 2, 7, 28}}}) {
    const std::string prefix = "shift_" + std::to_string(static_cast<int>(recorded.shift));
    std::vector<float> sigmas;
    std::vector<float> timesteps;
    for (const int steps : recorded.steps) {
      const auto schedule = sampling::make_schedule(*sampling::find_schedule("normal").value(), steps,
                                                    {.shift = recorded.shift, .train_steps = 1000});
      sigmas.insert(sigmas.end(), schedule.sigmas.begin(), schedule.sigmas.end());
      timesteps.insert(timesteps.end(), schedule.timesteps.begin(), schedule.timesteps.end());
    }
    EXPECT_EQ(sigmas, values(fixture[prefix + ".sigmas"])) << prefix;
    EXPECT_EQ(timesteps, values(fixture[prefix + ".timesteps"])) << prefix;
  }
}

constexpr std::uint64_t kSeeds[] = {0, 1, 42, 4294967295u, 4294967303u, 0x123456789ABCDEF, 0x7FFFFFFFFFFFFFFF};

TEST(NoiseParity, short_draws_are_torch_s_bit_for_bit) {
  const Fixture fixture("sampling/noise.safetensors");
  for (const std::uint64_t seed : kSeeds) {
    const std::string prefix = "seed_" + std::to_string(seed) + ".";
    for (const int size : {1, 2, 5, 15, 16, 17, 31, 100, 1000}) {
      sampling::TorchCpuGenerator generator(seed);
      std::vector<float> drawn(static_cast<std::size_t>(size));
      generator.normal(drawn);
      EXPECT_EQ(drawn, values(fixture[prefix + "size_" + std::to_string(size)])) << seed << " " << size;
    }
  }
}

TEST(NoiseParity, one_generator_drawn_from_again_and_again_keeps_torch_s_order) {
  const Fixture fixture("sampling/noise.safetensors");
  for (const std::uint64_t seed : kSeeds) {
    sampling::TorchCpuGenerator generator(seed);
    std::vector<float> sequence;
    for (const int size : {3, 16, 4, 33, 1, 2}) {
      std::vector<float> drawn(static_cast<std::size_t>(size));
      generator.normal(drawn);
      sequence.insert(sequence.end(), drawn.begin(), drawn.end());
    }
    EXPECT_EQ(sequence, values(fixture["seed_" + std::to_string(seed) + ".sequence"])) << seed;
  }
}

TEST(NoiseParity, latents_of_pictures_are_torch_s_bit_for_bit) {
  const Fixture fixture("sampling/noise.safetensors");
  for (const std::uint64_t seed : kSeeds) {
    const std::string prefix = "seed_" + std::to_string(seed) + ".";
    for (const int size : {4096, 16384, 18432, 262144, 16389}) {
      sampling::TorchCpuGenerator generator(seed);
      std::vector<float> drawn(static_cast<std::size_t>(size));
      generator.normal(drawn);
      std::vector<float> ends(drawn.begin(), drawn.begin() + 8);
      ends.insert(ends.end(), drawn.end() - 8, drawn.end());
      EXPECT_EQ(ends, values(fixture[prefix + "ends_" + std::to_string(size)])) << seed << " " << size;
      const auto* words = fixture["hash." + prefix + "size_" + std::to_string(size)].as<std::int32_t>();
      const std::uint64_t recorded =
          static_cast<std::uint32_t>(words[0]) | static_cast<std::uint64_t>(static_cast<std::uint32_t>(words[1])) << 32;
      EXPECT_EQ(hash_of(drawn), recorded) << seed << " " << size;
    }
  }
}

TEST(EulerParity, every_step_is_diffusers_bit_for_bit) {
  const Fixture fixture("sampling/euler.safetensors");
  const auto device = device::create_cpu_device();
  const auto stream = device->create_stream();
  device::Arena arena;
  device::ExecutionContext context(*device, *stream, arena);
  const sampling::SamplerRow& euler = *sampling::find_sampler("euler").value();
  for (const int steps : {1, 2, 5, 20}) {
    const TensorView trajectory = fixture["steps_" + std::to_string(steps)];
    const auto schedule = sampling::make_schedule(*sampling::find_schedule("").value(), steps);
    const Shape shape{1, 16, 4, 6};
    const sampling::NoiseOptions noise{.seed = 1234};
    auto run = sampling::SamplerRun::create(*device, *stream, euler,
                                            sampling::initial_state(euler, schedule, {}, shape, {&noise, 1}))
                   .value();
    const auto velocity = [](const TensorView& latents, float sigma, const TensorView& out) {
      for (std::int64_t i = 0; i < out.element_count(); ++i) out.f32()[i] = (latents.f32()[i] * 0.75f - 0.25f) * sigma;
    };
    for (int step = 0; step <= steps; ++step) {
      ASSERT_TRUE(testing::expect_close(run.latents(), trajectory.slice(0, step, 1), testing::kExact))
          << "after step " << step << " of " << steps;
      if (step < steps) run.advance(context, velocity);
    }
  }
}

}  // namespace
}  // namespace octavo::parity
