#include "sampling/guidance.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

namespace octavo::sampling {
namespace {

class GuidanceTest : public ::testing::Test {
 protected:
  /// Rows of two pictures, one element each: what each branch predicted.
  std::vector<float> apply(const Guidance& guidance, std::vector<float> prediction) {
    std::vector<float> out(2, -99.0f);
    const auto rows = static_cast<std::int64_t>(prediction.size());
    apply_guidance(context_, guidance, TensorView(prediction.data(), DType::kF32, Shape{rows, 1, 1, 1}),
                   TensorView(out.data(), DType::kF32, Shape{2, 1, 1, 1}));
    return out;
  }

  std::unique_ptr<device::Device> device_ = device::create_cpu_device(1);
  std::unique_ptr<device::Stream> stream_ = device_->create_stream();
  device::Arena arena_;
  device::ExecutionContext context_{*device_, *stream_, arena_};
};

TEST_F(GuidanceTest, uncond_rows_come_first) {
  // Pictures 0 and 1: uncond 1 and 2, cond 11 and 32.
  EXPECT_EQ(apply({.scale = 3.0f}, {1.0f, 2.0f, 11.0f, 32.0f}), (std::vector<float>{31.0f, 92.0f}));
}

TEST_F(GuidanceTest, at_one_and_below_only_the_conditional_branch_exists) {
  for (const float scale : {1.0f, 0.5f, 0.0f, -1.0f}) {
    const Guidance guidance{.scale = scale};
    EXPECT_FALSE(guidance.enabled());
    EXPECT_EQ(guidance.branches(), 1);
    EXPECT_EQ(apply(guidance, {5.0f, 6.0f}), (std::vector<float>{5.0f, 6.0f}));
  }
  EXPECT_EQ(Guidance{.scale = 1.01f}.branches(), 2);
}

TEST_F(GuidanceTest, a_row_count_that_does_not_fit_is_a_programmer_s_error) {
  EXPECT_THROW(apply({.scale = 3.0f}, {1.0f, 2.0f}), CheckFailure);
}

TEST_F(GuidanceTest, skip_layer_guidance_pushes_away_from_the_skipped_prediction) {
  const std::vector<float> cond = {11.0f, 32.0f};
  std::vector<float> skipped = {1.0f, 34.0f};
  std::vector<float> out = {100.0f, 200.0f};
  const auto view = [](const std::vector<float>& values) {
    return TensorView(const_cast<float*>(values.data()), DType::kF32, Shape{2, 1, 1, 1});
  };
  const SkipLayerGuidance guidance{.layers = {1}, .scale = 2.5, .start = 0, .stop = 1};
  apply_skip_layer_guidance(context_, guidance, view(cond), view(skipped), view(out));
  EXPECT_EQ(out, (std::vector<float>{125.0f, 195.0f}));
}

TEST(SkipLayerGuidance, applies_strictly_inside_its_window) {
  const auto steps_of = [](const SkipLayerGuidance& guidance, int steps) {
    std::vector<int> applied;
    for (int step = 0; step < steps; ++step) {
      if (guidance.applies(step, steps)) applied.push_back(step);
    }
    return applied;
  };
  EXPECT_EQ(steps_of({.layers = {7}, .scale = 2.8, .start = 0.01, .stop = 0.2}, 40),
            (std::vector<int>{1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(steps_of({.layers = {7}, .scale = 2.8, .start = 0.1, .stop = 0.4}, 10), (std::vector<int>{2, 3}));
  EXPECT_TRUE(steps_of({.layers = {7}, .scale = 0, .start = 0, .stop = 1}, 10).empty());
  EXPECT_TRUE(steps_of({.layers = {}, .scale = 1, .start = 0, .stop = 1}, 10).empty());
}

}  // namespace
}  // namespace octavo::sampling
