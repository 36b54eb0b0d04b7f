#include "sampling/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "sampling/schedule.h"

namespace octavo::sampling {
namespace {

/// The verbs on host memory over an analytic model: what a sampler can be read and tested with.
class FakeVerbs final : public SamplerVerbs {
 public:
  using Velocity = std::function<float(float x, float sigma)>;
  explicit FakeVerbs(Velocity velocity) : velocity_(std::move(velocity)) {}

  void denoise(const TensorView& latents, float sigma, Prediction prediction, const TensorView& out) override {
    sigmas_seen.push_back(sigma);
    for (std::int64_t i = 0; i < out.element_count(); ++i) {
      const float x = latents.f32()[i];
      const float v = velocity_(x, sigma);
      out.f32()[i] = prediction == Prediction::kVelocity ? v : x - sigma * v;
    }
  }
  void lincomb(std::initializer_list<Term> terms, const TensorView& out) override {
    for (std::int64_t i = 0; i < out.element_count(); ++i) {
      float sum = 0.0f;
      for (const Term& term : terms) sum += term.coefficient * term.input.f32()[i];
      out.f32()[i] = sum;
    }
  }
  void noise(const TensorView&) override { FAIL() << "this sampler is deterministic"; }

  std::vector<float> sigmas_seen;

 private:
  Velocity velocity_;
};

/// Runs `row` on one latent vector from sigma 1 to 0.
std::vector<float> run(const SamplerRow& row, int steps, std::vector<float> latents, FakeVerbs& verbs) {
  const Schedule schedule = make_schedule(*find_schedule(row.default_schedule).value(), steps);
  const Shape shape{1, 1, 1, static_cast<std::int64_t>(latents.size())};
  std::vector<std::vector<float>> storage(static_cast<std::size_t>(row.workspace_count + row.history_count),
                                          std::vector<float>(latents.size()));
  std::vector<TensorView> tensors;
  for (auto& values : storage) tensors.emplace_back(values.data(), DType::kF32, shape);
  SamplerStep step;
  step.sigmas = schedule.sigmas;
  step.latents = TensorView(latents.data(), DType::kF32, shape);
  step.workspace = std::span(tensors).first(static_cast<std::size_t>(row.workspace_count));
  step.history = std::span(tensors).last(static_cast<std::size_t>(row.history_count));
  for (step.index = 0; step.index < steps; ++step.index) row.step(verbs, step);
  return latents;
}

const SamplerRow& sampler(std::string_view name) { return *find_sampler(name).value(); }

TEST(Samplers, a_model_that_knows_the_picture_is_followed_to_it) {
  // x = sigma * noise + (1 - sigma) * picture is a straight line: every sampler must end on the picture.
  constexpr float kPicture = 0.37f;
  for (const SamplerRow& row : sampler_rows()) {
    for (const int steps : {1, 2, 7, 28}) {
      FakeVerbs verbs([](float x, float sigma) { return (x - kPicture) / sigma; });
      for (const float value : run(row, steps, {1.5f, -2.0f, 0.0f}, verbs)) {
        EXPECT_NEAR(value, kPicture, 2e-6) << row.name << " " << steps;
      }
    }
  }
}

TEST(Samplers, only_declared_sigmas_are_asked_of_the_model) {
  for (const SamplerRow& row : sampler_rows()) {
    FakeVerbs verbs([](float x, float) { return x; });
    run(row, 9, {1.0f}, verbs);
    const Schedule schedule = make_schedule(*find_schedule(row.default_schedule).value(), 9);
    EXPECT_EQ(verbs.sigmas_seen, model_sigmas(row, schedule.sigmas)) << row.name;
  }
}

TEST(Euler, converges_at_first_order_on_a_curved_flow) {
  // dx/dsigma = x from sigma 1 to 0: x(0) = x(1) / e.
  const auto error = [](int steps) {
    FakeVerbs verbs([](float x, float) { return x; });
    return std::abs(run(sampler("euler"), steps, {1.0f}, verbs)[0] - std::exp(-1.0));
  };
  EXPECT_LT(error(100), 0.01);
  EXPECT_NEAR(error(50) / error(100), 2.0, 0.1);
}

TEST(Samplers, names_labels_and_aliases_find_their_row_in_any_case) {
  for (const char* name : {"", "euler", "Euler", "EULER", "k_euler", "FlowMatchEulerDiscreteScheduler"}) {
    EXPECT_EQ(sampler(name).name, "euler") << name;
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
