#include "sampling/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "sampling/sampler_state.h"

namespace octavo::sampling {
namespace {

/// The verbs on host memory over an analytic model: what a sampler can be read and tested with.
class FakeVerbs final : public SamplerVerbs {
 public:
  using Velocity = std::function<double(double x, double sigma)>;
  explicit FakeVerbs(Velocity velocity) : velocity_(std::move(velocity)) {}

  void denoise(const TensorView& latents, float sigma, Prediction prediction, const TensorView& out) override {
    if (std::find(sigmas_seen.begin(), sigmas_seen.end(), sigma) == sigmas_seen.end()) sigmas_seen.push_back(sigma);
    for (std::int64_t i = 0; i < out.element_count(); ++i) {
      const double x = latents.f32()[i];
      const double v = velocity_(x, sigma);
      out.f32()[i] = static_cast<float>(prediction == Prediction::kVelocity ? v : x - sigma * v);
    }
  }
  void lincomb(std::initializer_list<Term> terms, const TensorView& out) override {
    for (std::int64_t i = 0; i < out.element_count(); ++i) {
      float sum = 0.0f;
      for (const Term& term : terms) sum += term.coefficient * term.input.f32()[i];
      out.f32()[i] = sum;
    }
  }
  void noise(const TensorView& out) override {
    ++noises_drawn;
    stream_.normal({out.f32(), static_cast<std::size_t>(out.element_count())});
  }

  std::vector<float> sigmas_seen;  // each once
  int noises_drawn = 0;

 private:
  Velocity velocity_;
  NoiseStream stream_{NoiseSource::kTorchCpu, 77};
};

/// Runs `row` on one latent vector over `sigmas`, which need not end in 0.
std::vector<float> run_over(const SamplerRow& row, std::span<const float> sigmas, std::vector<float> latents,
                            FakeVerbs& verbs, const SamplerOptions& options = {}) {
  const Shape shape{1, 1, 1, static_cast<std::int64_t>(latents.size())};
  std::vector<std::vector<float>> storage(static_cast<std::size_t>(row.workspace_count + row.history_count),
                                          std::vector<float>(latents.size()));
  std::vector<TensorView> tensors;
  for (auto& values : storage) tensors.emplace_back(values.data(), DType::kF32, shape);
  SamplerStep step;
  step.options = options;
  step.sigmas = sigmas;
  step.latents = TensorView(latents.data(), DType::kF32, shape);
  step.workspace = std::span(tensors).first(static_cast<std::size_t>(row.workspace_count));
  step.history = std::span(tensors).last(static_cast<std::size_t>(row.history_count));
  for (step.index = 0; step.index + 1 < static_cast<int>(sigmas.size()); ++step.index) row.step(verbs, step);
  return latents;
}

/// The levels that a run of `steps` of the row's own schedule visits.
std::vector<float> levels(const SamplerRow& row, int steps) {
  const NoiseOptions noise;
  return initial_state(row, make_schedule(*find_schedule(row.default_schedule).value(), steps), {}, Shape{1, 1, 1, 1},
                       {&noise, 1})
      .sigmas;
}

const SamplerRow& sampler(std::string_view name) { return *find_sampler(name).value(); }

TEST(Samplers, a_model_that_knows_the_picture_is_followed_to_it) {
  // x = sigma * noise + (1 - sigma) * picture is a straight line: every sampler must end on the picture.
  constexpr double kPicture = 0.37;
  for (const SamplerRow& row : sampler_rows()) {
    for (const int steps : {1, 2, 3, 7, 28}) {
      FakeVerbs verbs([](double x, double sigma) { return (x - kPicture) / sigma; });
      for (const float value : run_over(row, levels(row, steps), {1.5f, -2.0f, 0.0f}, verbs)) {
        EXPECT_NEAR(value, kPicture, 2e-6) << row.name << " " << steps;
      }
    }
  }
}

TEST(Samplers, only_declared_sigmas_are_asked_of_the_model) {
  for (const SamplerRow& row : sampler_rows()) {
    FakeVerbs verbs([](double x, double) { return x; });
    const std::vector<float> sigmas = levels(row, 9);
    run_over(row, sigmas, {1.0f}, verbs);
    EXPECT_EQ(verbs.sigmas_seen, model_sigmas(row, sigmas)) << row.name;
  }
}

TEST(Samplers, the_noise_level_of_pure_noise_is_kept_between_steps) {
  // A model for which the picture is always 0 (v = x / sigma) leaves noise of exactly the level's size. Whatever a
  // stochastic sampler takes away it must put back.
  for (const SamplerRow& row : sampler_rows()) {
    for (const float eta : {0.0f, 0.4f, 1.0f}) {
      std::vector<float> latents(1 << 15);
      NoiseStream(NoiseSource::kTorchCpu, 3).normal(latents);
      std::vector<float> sigmas = levels(row, 8);
      sigmas.resize(6);
      for (float& value : latents) value *= sigmas.front();
      FakeVerbs verbs([](double x, double sigma) { return x / sigma; });
      double squares = 0;
      latents = run_over(row, sigmas, std::move(latents), verbs, {.eta = eta, .s_noise = 1.0f});
      for (const float value : latents) squares += static_cast<double>(value) * value;
      EXPECT_NEAR(std::sqrt(squares / static_cast<double>(latents.size())) / sigmas.back(), 1.0, 0.02)
          << row.name << " eta " << eta;
    }
  }
}

TEST(Samplers, eta_zero_draws_no_noise_and_others_are_not_moved_by_it) {
  for (const SamplerRow& row : sampler_rows()) {
    const auto draw = [&](const SamplerOptions& options, int& noises) {
      FakeVerbs verbs([](double x, double sigma) { return x * sigma; });
      const std::vector<float> end = run_over(row, levels(row, 5), {1.0f, -0.5f}, verbs, options);
      noises = verbs.noises_drawn;
      return end;
    };
    int none = 0, all = 0, louder = 0;
    const std::vector<float> without = draw({.eta = 0.0f, .s_noise = 1.0f}, none);
    const std::vector<float> with = draw({.eta = 1.0f, .s_noise = 1.0f}, all);
    const std::vector<float> more = draw({.eta = 1.0f, .s_noise = 1.1f}, louder);
    EXPECT_EQ(with == without, !row.uses_eta) << row.name;
    EXPECT_EQ(more == with, !row.uses_eta) << row.name;
    if (row.uses_eta) {
      EXPECT_EQ(none, 0) << row.name;
      EXPECT_EQ(all, 4) << row.name;  // none at the last of five steps
    }
  }
}

/// The flow of a mixture of two normal distributions to pure noise: velocity = E[noise - picture | x].
double mixture_velocity(double x, double sigma) {
  constexpr double kWeights[] = {0.3, 0.7}, kMeans[] = {-1.2, 0.8}, kDeviations[] = {0.5, 0.3};
  double total = 0, velocity = 0;
  for (int k = 0; k < 2; ++k) {
    const double share = 1.0 - sigma;
    const double variance = share * share * kDeviations[k] * kDeviations[k] + sigma * sigma;
    const double distance = x - share * kMeans[k];
    const double density = kWeights[k] * std::exp(-0.5 * distance * distance / variance) / std::sqrt(variance);
    const double picture = kMeans[k] + share * kDeviations[k] * kDeviations[k] / variance * distance;
    total += density;
    velocity += density * (sigma / variance * distance - picture);
  }
  return velocity / total;
}

/// The classical Runge-Kutta method in 4000 steps of double precision.
double exact_end(double x, double from, double to) {
  constexpr int kSteps = 4000;
  const double h = (to - from) / kSteps;
  for (int i = 0; i < kSteps; ++i) {
    const double sigma = from + i * h;
    const double k1 = mixture_velocity(x, sigma);
    const double k2 = mixture_velocity(x + 0.5 * h * k1, sigma + 0.5 * h);
    const double k3 = mixture_velocity(x + 0.5 * h * k2, sigma + 0.5 * h);
    const double k4 = mixture_velocity(x + h * k3, sigma + h);
    x += h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4);
  }
  return x;
}

/// The largest error over a few starts after `steps` even steps from 0.9 to 0.2, where the mixture's flow bends most.
double error_of(const SamplerRow& row, int steps) {
  constexpr float kFrom = 0.9f, kTo = 0.2f;
  std::vector<float> sigmas;
  for (int i = 0; i <= steps; ++i) {
    sigmas.push_back(kFrom + (kTo - kFrom) * static_cast<float>(i) / static_cast<float>(steps));
  }
  const std::vector<float> starts = {-1.1f, -0.4f, 0.1f, 0.9f};
  FakeVerbs verbs(mixture_velocity);
  const std::vector<float> ends = run_over(row, sigmas, starts, verbs, {.eta = 0.0f, .s_noise = 1.0f});
  double error = 0;
  for (std::size_t i = 0; i < starts.size(); ++i) {
    error = std::max(error, std::abs(ends[i] - exact_end(starts[i], kFrom, sigmas.back())));
  }
  return error;
}

TEST(Samplers, errors_fall_with_the_order_of_the_method) {
  // Without noise of its own (eta 0). LCM leaves the flow on purpose: it has no order.
  const std::map<std::string_view, double> orders = {
      {"euler", 1},        {"euler_ancestral", 1}, {"heun", 2},
      {"dpmpp_2m", 2},     {"dpmpp_2m_sde", 2},    {"dpmpp_2m_sde_heun", 2},
      {"dpmpp_3m_sde", 3}, {"uni_pc", 3},          {"lcm", 0}};
  for (const SamplerRow& row : sampler_rows()) {
    ASSERT_TRUE(orders.contains(row.name)) << row.name << " needs its order here";
    const double order = orders.at(row.name);
    if (order == 0) continue;
    const double coarse = error_of(row, 20), fine = error_of(row, 40);
    EXPECT_GT(std::log2(coarse / fine), order - 0.45) << row.name << ": " << coarse << " then " << fine;
    EXPECT_LT(std::log2(coarse / fine), order + 0.9) << row.name << ": " << coarse << " then " << fine;
  }
}

TEST(Samplers, names_labels_and_aliases_find_their_row_in_any_case) {
  for (const char* name : {"", "euler", "Euler", "EULER", "k_euler", "FlowMatchEulerDiscreteScheduler"}) {
    EXPECT_EQ(sampler(name).name, "euler") << name;
  }
  for (const char* name : {"Euler a", "k_euler_a", "k_euler_ancestral"}) {
    EXPECT_EQ(sampler(name).name, "euler_ancestral") << name;
  }
  for (const SamplerRow& row : sampler_rows()) {
    EXPECT_EQ(sampler(row.name).name, row.name);
    EXPECT_EQ(sampler(row.label).name, row.name);
    for (const std::string_view alias : row.aliases) EXPECT_EQ(sampler(alias).name, row.name);
    EXPECT_TRUE(find_schedule(row.default_schedule).ok());
  }
}

TEST(Samplers, an_unknown_name_is_an_error_that_lists_the_known_ones) {
  const Status status = find_sampler("euler b").status();
  EXPECT_EQ(status.code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(status.subject(), "sampler");
  EXPECT_THAT(status.message(), ::testing::HasSubstr("'euler b'; use one of: euler"));
}

}  // namespace
}  // namespace octavo::sampling
