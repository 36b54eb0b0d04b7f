// A whole run of a model of Medium's kind (tools/reference/record_medium.py): dual attention blocks, a cropped position
// table, skip-layer guidance; final latents against diffusers' pipeline.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "pipeline/pipeline.h"
#include "testing/allocation_counter.h"
#include "testing/expect_close.h"
#include "tests/parity/fixture.h"
#include "tests/parity/recipe_model.h"

namespace octavo::parity {
namespace {

using generation::GenerationRequest;
using pipeline::DenoiseState;
using pipeline::Pipeline;
using testing::AllocationCounter;

constexpr const char* kFixture = "models/medium_pipeline.safetensors";

class MediumParity : public ::testing::Test {
 protected:
  MediumParity() : fixture_(kFixture), model_(kFixture) {
    model_.add_tokenizers_and_scheduler();
    pipeline::LoadOptions options;
    options.precision = pipeline::LoadOptions::Precision::kF32;
    auto loaded = pipeline::load_pipeline(model_.root(), options);
    OCTAVO_CHECK(loaded.ok(), "{}", loaded.status().to_string());
    pipeline_ = std::move(*loaded);
  }

  GenerationRequest request(bool with_skipped_layers) const {
    const auto recorded = boost::json::parse(fixture_.metadata("model")).at("request");
    GenerationRequest wanted;
    wanted.prompt = recorded.at("prompt").as_string();
    wanted.negative_prompt = recorded.at("negative_prompt").as_string();
    wanted.width = recorded.at("width").to_number<int>();
    wanted.height = recorded.at("height").to_number<int>();
    wanted.steps = recorded.at("steps").to_number<int>();
    wanted.guidance_scale = recorded.at("guidance_scale").to_number<double>();
    wanted.seed = recorded.at("seed").to_number<std::int64_t>();
    if (with_skipped_layers) {
      wanted.skip_layers = boost::json::value_to<std::vector<int>>(recorded.at("skip_layers"));
      wanted.skip_layer_scale = recorded.at("skip_layer_scale").to_number<double>();
      wanted.skip_layer_start = recorded.at("skip_layer_start").to_number<double>();
      wanted.skip_layer_stop = recorded.at("skip_layer_stop").to_number<double>();
    }
    return generation::resolve(wanted, pipeline_->capabilities()).value();
  }

  Fixture fixture_;
  RecipeModel model_;
  std::unique_ptr<Pipeline> pipeline_;
};

TEST_F(MediumParity, final_latents_equal_diffusers_with_and_without_skipped_layers) {
  for (const bool with_skipped_layers : {false, true}) {
    const GenerationRequest wanted = request(with_skipped_layers);
    DenoiseState state = pipeline_->begin(wanted, 0).value();
    ASSERT_TRUE(pipeline_->advance(state, wanted.steps, {}).ok());
    const TensorView recorded = fixture_[with_skipped_layers ? "latents_with_skipped_layers" : "latents"];
    const TensorView drawn(state.sampler.latents.data(), DType::kF32, state.sampler.shape);
    EXPECT_TRUE(testing::expect_close(drawn, recorded, testing::kForwardF32)) << with_skipped_layers;
  }
  // Otherwise the comparison above would prove nothing.
  EXPECT_FALSE(
      testing::expect_close(fixture_["latents"], fixture_["latents_with_skipped_layers"], testing::kForwardBf16));
}

TEST_F(MediumParity, skip_layer_guidance_survives_parking_at_every_step) {
  const GenerationRequest wanted = request(true);
  DenoiseState straight = pipeline_->begin(wanted, 0).value();
  ASSERT_TRUE(pipeline_->advance(straight, wanted.steps, {}).ok());
  DenoiseState parked = pipeline_->begin(wanted, 0).value();
  for (int step = 1; step <= wanted.steps; ++step) {
    parked = DenoiseState::from_bytes(parked.to_bytes()).value();
    EXPECT_EQ(parked.request.skip_layers, wanted.skip_layers);
    ASSERT_TRUE(pipeline_->advance(parked, step, {}).ok());
  }
  EXPECT_EQ(parked.sampler.latents, straight.sampler.latents);
}

TEST_F(MediumParity, steps_allocate_nothing_after_warm_up) {
  if (!AllocationCounter::supported()) GTEST_SKIP() << "sanitizers bring their own malloc";
  const GenerationRequest wanted = request(true);
  std::optional<AllocationCounter> counter;
  std::int64_t ours = -1;
  generation::RunControl control;
  control.on_progress = [&](const generation::Progress& progress) {
    // Layers are skipped in steps 2 to 5; counted are one of those after the first, and some without.
    if (progress.step == 4) counter.emplace();
    if (progress.step == 8) ours = counter->stop_and_count_ours();
  };
  DenoiseState state = pipeline_->begin(wanted, 0).value();
  ASSERT_TRUE(pipeline_->advance(state, wanted.steps, control).ok());
  EXPECT_EQ(ours, 0);
}

TEST_F(MediumParity, a_layer_that_the_model_lacks_is_refused_by_name) {
  GenerationRequest wanted;
  wanted.skip_layer_scale = 2.8;  // layers 7, 8, 9
  const auto resolved = generation::resolve(wanted, pipeline_->capabilities());
  EXPECT_EQ(resolved.status().subject(), "skip_layers");
  EXPECT_THAT(resolved.status().to_string(), ::testing::HasSubstr("0 to 4"));
}

TEST(MmditConfig, dual_layers_must_be_layers) {
  const auto config = [](const char* dual) {
    return models::MmditConfig::from_json(
        boost::json::parse(std::string(R"({"num_layers": 4, "num_attention_heads": 2, "attention_head_dim": 64,
            "in_channels": 16, "joint_attention_dim": 64, "pooled_projection_dim": 64, "pos_embed_max_size": 8,
            "patch_size": 2, "qk_norm": "rms_norm", "dual_attention_layers": )") +
                           dual + "}")
            .get_object(),
        "config.json");
  };
  EXPECT_EQ(config("[2, 0, 2]")->dual_layers, (std::vector<int>{0, 2}));
  EXPECT_TRUE(config("[]")->dual_layers.empty());
  EXPECT_TRUE(config("null")->dual_layers.empty());
  for (const char* wrong : {"[4]", "[-1]", "[0.5]", "[\"0\"]", "3"}) {
    EXPECT_THAT(config(wrong).status().to_string(), ::testing::HasSubstr("dual_attention_layers")) << wrong;
  }
}

}  // namespace
}  // namespace octavo::parity
