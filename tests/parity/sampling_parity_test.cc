// Schedules, noise and samplers against tools/reference/record_sampling.py: diffusers, torch, scipy and the published
// formulas. Every bit equal for diffusers' schedule, torch's noise and Euler; a rounding's width elsewhere.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
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

TEST(ScheduleParity, those_of_the_training_table_are_comfyui_s) {
  const Fixture fixture("sampling/other_schedules.safetensors");
  for (const double shift : {3.0, 1.0}) {
    for (const int steps : {2, 4, 9, 20, 28, 50, 200}) {
      for (const std::string name : {"karras", "exponential", "kl_optimal", "beta", "ddim_uniform"}) {
        std::vector<float> sigmas = sampling::make_schedule(*sampling::find_schedule(name).value(), steps,
                                                            {.shift = shift, .train_steps = 1000})
                                        .sigmas;
        sigmas.pop_back();
        const TensorView recorded =
            fixture["shift_" + std::to_string(static_cast<int>(shift)) + "." + name + "." + std::to_string(steps)];
        const TensorView ours(sigmas.data(), DType::kF32, Shape{static_cast<std::int64_t>(sigmas.size())});
        ASSERT_EQ(ours.dim(0), recorded.dim(0)) << name << " " << steps;
        // Levels of the table are copied; the others are computed in double and rounded once.
        const bool copied = name == "beta" || name == "ddim_uniform";
        EXPECT_TRUE(testing::expect_close(ours, recorded, copied ? testing::kExact : testing::kOpF32))
            << name << " " << steps << " shift " << shift;
      }
    }
  }
}

TEST(ScheduleParity, karras_and_exponential_are_diffusers_where_the_low_end_is_not_shifted_twice) {
  const Fixture fixture("sampling/other_schedules.safetensors");
  for (const int steps : {2, 9, 28}) {
    for (const std::string name : {"karras", "exponential"}) {
      std::vector<float> sigmas =
          sampling::make_schedule(*sampling::find_schedule(name).value(), steps, {.shift = 1.0, .train_steps = 1000})
              .sigmas;
      const TensorView ours(sigmas.data(), DType::kF32, Shape{steps});
      EXPECT_TRUE(
          testing::expect_close(ours, fixture["diffusers." + name + "." + std::to_string(steps)], testing::kOpF32))
          << name << " " << steps;
    }
  }
}

TEST(NoiseParity, philox_is_a1111_s_formula_bit_for_bit) {
  const Fixture fixture("sampling/variations.safetensors");
  for (const std::uint64_t seed :
       {std::uint64_t{0}, std::uint64_t{42}, (std::uint64_t{1} << 32) + 7, (std::uint64_t{1} << 63) - 1}) {
    sampling::PhiloxGenerator generator(seed);
    for (const int call : {0, 1}) {
      std::vector<float> drawn(1000);
      generator.normal(drawn);
      EXPECT_EQ(drawn, values(fixture["philox." + std::to_string(seed) + "." + std::to_string(call)])) << seed;
    }
  }
}

TEST(NoiseParity, variations_turn_the_columns_as_a1111_does) {
  const Fixture fixture("sampling/variations.safetensors");
  const Shape shape{16, 16, 12};
  for (const auto& [strength, name] : {std::pair{0.1, "0.1"}, {0.5, "0.5"}, {0.9, "0.9"}}) {
    std::vector<float> noise(static_cast<std::size_t>(shape.element_count()));
    sampling::draw_initial_noise({.seed = 11, .subseed = 12, .subseed_strength = strength}, shape, noise);
    EXPECT_TRUE(testing::expect_close(TensorView(noise.data(), DType::kF32, shape),
                                      fixture[std::string("variation.") + name], testing::kOpF32))
        << name;
  }
}

/// The recorder's analytic model: velocity = E[noise - picture | x] for a mixture of two normal distributions.
void mixture_velocity(const TensorView& latents, float sigma_f32, const TensorView& out) {
  constexpr double kWeights[] = {0.3, 0.7}, kMeans[] = {-1.2, 0.8}, kDeviations[] = {0.5, 0.3};
  const double sigma = sigma_f32, share = 1.0 - sigma;
  for (std::int64_t i = 0; i < out.element_count(); ++i) {
    double total = 0, velocity = 0;
    for (int k = 0; k < 2; ++k) {
      const double variance = share * share * kDeviations[k] * kDeviations[k] + sigma * sigma;
      const double distance = latents.f32()[i] - share * kMeans[k];
      const double density = kWeights[k] * std::exp(-0.5 * distance * distance / variance) / std::sqrt(variance);
      total += density;
      velocity += density * (sigma / variance * distance - kMeans[k] -
                             share * kDeviations[k] * kDeviations[k] / variance * distance);
    }
    out.f32()[i] = static_cast<float>(velocity / total);
  }
}

/// Every step of `sampler` over diffusers' schedule against the recorded trajectory.
void expect_trajectory(const std::string& sampler, int steps, float eta, const TensorView& recorded) {
  const auto device = device::create_cpu_device();
  const auto stream = device->create_stream();
  device::Arena arena;
  device::ExecutionContext context(*device, *stream, arena);
  const sampling::SamplerRow& row = *sampling::find_sampler(sampler).value();
  const auto schedule = sampling::make_schedule(*sampling::find_schedule("normal").value(), steps);
  const sampling::NoiseOptions noise{.seed = 1234};
  auto run = sampling::SamplerRun::create(
                 *device, *stream, row,
                 sampling::initial_state(row, schedule, {.eta = eta, .s_noise = 1.0f}, Shape{1, 16, 2, 3}, {&noise, 1}))
                 .value();
  ASSERT_EQ(recorded.dim(0), steps);
  for (int step = 0; step < steps; ++step) {
    run.advance(context, mixture_velocity);
    ASSERT_TRUE(testing::expect_close(run.latents(), recorded.slice(0, step, 1), testing::kOpF32))
        << sampler << " eta " << eta << " after step " << step + 1 << " of " << steps;
  }
}

TEST(SamplerParity, every_step_follows_the_formulas_of_k_diffusion_and_comfyui) {
  const Fixture fixture("sampling/formulas.safetensors");
  for (const std::string sampler :
       {"euler_ancestral", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_2m_sde_heun", "dpmpp_3m_sde"}) {
    for (const auto& [eta, name] : {std::pair{0.0f, "0"}, {0.5f, "0.5"}, {1.0f, "1"}}) {
      if (sampler == "dpmpp_2m" && eta != 1.0f) continue;  // takes no eta
      for (const int steps : {1, 2, 12}) {
        expect_trajectory(sampler, steps, eta, fixture[sampler + ".eta_" + name + ".steps_" + std::to_string(steps)]);
      }
    }
  }
}

TEST(SamplerParity, heun_unipc_and_lcm_are_diffusers) {
  const Fixture fixture("sampling/diffusers_samplers.safetensors");
  for (const std::string sampler : {"heun", "uni_pc", "lcm"}) {
    for (const int steps : {1, 2, 12}) {
      expect_trajectory(sampler, steps, 1.0f, fixture[sampler + ".steps_" + std::to_string(steps)]);
    }
  }
}

}  // namespace
}  // namespace octavo::parity
