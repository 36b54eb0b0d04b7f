// The pipeline on the embedded model: what a request may rely on. Pictures are small and steps few, so that it is
// quick.
#include "pipeline/pipeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "telemetry/stages.h"

namespace octavo::pipeline {
namespace {

using generation::GenerationRequest;
using generation::RunControl;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::unique_ptr<Pipeline> load(LoadOptions options = {}) {
  auto loaded = load_pipeline(std::string(OCTAVO_SOURCE_DIR) + "/models/octavo-tiny", options);
  EXPECT_TRUE(loaded.ok()) << loaded.status().to_string();
  return std::move(*loaded);
}

class PipelineTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { pipeline_ = load(); }
  static void TearDownTestSuite() { pipeline_.reset(); }

  static GenerationRequest request(const std::string& prompt = "a red apple") {
    GenerationRequest wanted;
    wanted.prompt = prompt;
    wanted.width = wanted.height = 128;
    wanted.steps = 4;
    wanted.seed = 11;
    return generation::resolve(wanted, pipeline_->capabilities()).value();
  }
  static std::vector<std::uint8_t> draw(const GenerationRequest& wanted) {
    const auto result = pipeline_->generate(wanted, {});
    EXPECT_TRUE(result.ok()) << result.status().to_string();
    return result->images.front().image.pixels;
  }
  static inline std::unique_ptr<Pipeline> pipeline_;
};

TEST_F(PipelineTest, a_run_parked_at_every_step_ends_in_the_same_bits) {
  const GenerationRequest wanted = request();
  DenoiseState straight = pipeline_->begin(wanted, 0).value();
  ASSERT_TRUE(pipeline_->advance(straight, wanted.steps, {}).ok());
  std::vector<std::byte> parked = pipeline_->begin(wanted, 0).value().to_bytes();
  for (int step = 1; step <= wanted.steps; ++step) {
    pipeline_->clear_prompt_cache();  // the other worker that goes on has never seen this prompt
    DenoiseState state = DenoiseState::from_bytes(parked).value();
    ASSERT_TRUE(pipeline_->advance(state, step, {}).ok());
    EXPECT_EQ(state.sampler.step, step);
    parked = state.to_bytes();
  }
  const DenoiseState resumed = DenoiseState::from_bytes(parked).value();
  EXPECT_EQ(resumed.sampler.latents, straight.sampler.latents);
  EXPECT_EQ(pipeline_->decode(resumed)->pixels, pipeline_->decode(straight)->pixels);
}

TEST_F(PipelineTest, a_long_weighted_prompt_is_parked_and_resumed_to_the_same_bits) {
  GenerationRequest wanted = request("a (red:1.3) apple BREAK two [cats] on a table");
  wanted.prompt_2 = "an apple";
  wanted.negative_prompt_3 = "(blue:1.2)";
  wanted.clip_skip = 2;
  wanted.steps = 2;
  DenoiseState straight = pipeline_->begin(wanted, 0).value();
  ASSERT_TRUE(pipeline_->advance(straight, 2, {}).ok());
  DenoiseState parked = pipeline_->begin(wanted, 0).value();
  ASSERT_TRUE(pipeline_->advance(parked, 1, {}).ok());
  pipeline_->clear_prompt_cache();
  DenoiseState resumed = DenoiseState::from_bytes(parked.to_bytes()).value();
  EXPECT_EQ(resumed.request.prompt_2, wanted.prompt_2);
  EXPECT_EQ(resumed.request.negative_prompt_3, wanted.negative_prompt_3);
  EXPECT_EQ(resumed.request.prompt_syntax, "a1111");
  EXPECT_EQ(resumed.request.clip_skip, 2);
  ASSERT_TRUE(pipeline_->advance(resumed, 2, {}).ok());
  EXPECT_EQ(resumed.sampler.latents, straight.sampler.latents);
}

TEST_F(PipelineTest, the_prompts_syntax_decides_what_brackets_mean) {
  GenerationRequest plain = request("a (red:1.5) apple");
  plain.steps = 1;
  GenerationRequest other = plain;
  const std::vector<std::uint8_t> weighted = draw(plain);
  other.prompt_syntax = "plain";
  EXPECT_NE(draw(other), weighted);
  other.prompt_syntax = "comfyui";
  EXPECT_NE(draw(other), weighted);
  GenerationRequest simple = request("a red apple");
  simple.steps = 1;
  const std::vector<std::uint8_t> unweighted = draw(simple);
  for (const std::string_view syntax : generation::kPromptSyntaxes) {
    simple.prompt_syntax = syntax;
    EXPECT_EQ(draw(simple), unweighted) << syntax;
  }
}

TEST_F(PipelineTest, every_sampler_and_schedule_draws_to_its_last_step) {
  const generation::Capabilities& can = pipeline_->capabilities();
  for (std::size_t i = 0; i < can.samplers.size() + can.schedules.size(); ++i) {
    GenerationRequest wanted = request();
    wanted.width = wanted.height = 128;
    wanted.steps = 2;
    wanted.guidance_scale = 1;
    (i < can.samplers.size() ? wanted.sampler : wanted.schedule) =
        i < can.samplers.size() ? can.samplers[i].name : can.schedules[i - can.samplers.size()].name;
    int last_step = 0, steps = -1;
    RunControl control;
    control.on_progress = [&](const generation::Progress& progress) {
      if (progress.stage != telemetry::kDenoise) return;
      last_step = progress.step;
      steps = progress.steps;
    };
    const auto drawn = pipeline_->generate(wanted, control);
    ASSERT_TRUE(drawn.ok()) << wanted.sampler << wanted.schedule << drawn.status().to_string();
    EXPECT_EQ(last_step, steps) << wanted.sampler << wanted.schedule;
  }
}

TEST_F(PipelineTest, forged_states_are_refused) {
  std::vector<std::byte> bytes = pipeline_->begin(request(), 0).value().to_bytes();
  for (const std::size_t length : {std::size_t{0}, std::size_t{11}, bytes.size() / 2, bytes.size() - 1}) {
    EXPECT_EQ(DenoiseState::from_bytes(std::span(bytes).first(length)).status().code(), ErrorCode::kDataCorruption);
  }
  DenoiseState other_size = pipeline_->begin(request(), 0).value();
  other_size.request.width = 256;
  EXPECT_EQ(pipeline_->advance(other_size, 4, {}).code(), ErrorCode::kDataCorruption);
  DenoiseState other_syntax = pipeline_->begin(request(), 0).value();
  other_syntax.request.prompt_syntax = "latex";
  EXPECT_EQ(DenoiseState::from_bytes(other_syntax.to_bytes()).status().code(), ErrorCode::kDataCorruption);
}

TEST_F(PipelineTest, picture_does_not_depend_on_neighbours_or_the_prompt_cache) {
  const std::vector<std::uint8_t> alone = draw(request());
  GenerationRequest batch = request();
  batch.seed = 10;
  batch.image_count = 3;
  const auto drawn = pipeline_->generate(batch, {});
  ASSERT_TRUE(drawn.ok());
  ASSERT_EQ(drawn->images.size(), 3u);
  EXPECT_EQ(drawn->images[1].seed, 11);
  EXPECT_EQ(drawn->images[1].image.pixels, alone);
  draw(request("two cats"));
  EXPECT_EQ(draw(request()), alone) << "prompt taken from the cache";
}

TEST_F(PipelineTest, pictures_drawn_together_are_those_drawn_one_by_one) {
  LoadOptions options;
  // A library may share a sum among threads, or block it in bf16, by how many rows there are (docs/decisions/0002).
  options.precision = LoadOptions::Precision::kF32;
  options.threads = 1;
  const auto pipeline = load(options);
  for (const char* sampler : {"euler_ancestral", "dpmpp_2m"}) {  // fresh noise; a history
    GenerationRequest wanted = request();
    wanted.sampler = sampler;
    wanted.steps = 3;
    wanted.image_count = 2;
    std::vector<DenoiseState> together;
    for (int i = 0; i < wanted.image_count; ++i) together.push_back(pipeline->begin(wanted, i).value());
    const int steps = together.front().sampler.steps();
    ASSERT_TRUE(pipeline->advance_together(together, steps, {}).ok());
    for (int i = 0; i < wanted.image_count; ++i) {
      DenoiseState alone = pipeline->begin(wanted, i).value();
      ASSERT_TRUE(pipeline->advance(alone, steps, {}).ok());
      const DenoiseState& one = together[static_cast<std::size_t>(i)];
      EXPECT_TRUE(one.sampler == alone.sampler) << sampler << ", picture " << i;
      EXPECT_EQ(pipeline->decode(one)->pixels, pipeline->decode(alone)->pixels) << sampler << ", picture " << i;
    }
  }
}

TEST_F(PipelineTest, with_a_variation_the_seed_stays_and_the_subseed_counts) {
  GenerationRequest batch = request();
  batch.steps = 1;
  batch.guidance_scale = 1;
  batch.noise_source = "nv";
  batch.subseed = 100;
  batch.subseed_strength = 0.5;
  batch.image_count = 2;
  const auto drawn = pipeline_->generate(batch, {});
  ASSERT_TRUE(drawn.ok());
  EXPECT_EQ(drawn->images[1].seed, batch.seed);
  GenerationRequest second = batch;
  second.subseed = 101;
  second.image_count = 1;
  EXPECT_EQ(draw(second), drawn->images[1].image.pixels);
  EXPECT_NE(draw(second), drawn->images[0].image.pixels);
  second.noise_source = "cpu";
  EXPECT_NE(draw(second), drawn->images[1].image.pixels);
}

TEST_F(PipelineTest, shift_and_eta_change_the_picture) {
  GenerationRequest plain = request();
  plain.steps = 2;
  plain.guidance_scale = 1;
  plain.sampler = "euler_ancestral";
  GenerationRequest shifted = plain, calm = plain;
  shifted.shift = 1;
  calm.eta = 0;
  EXPECT_NE(draw(shifted), draw(plain));
  EXPECT_NE(draw(calm), draw(plain));
}

TEST_F(PipelineTest, seed_prompt_negative_and_guidance_change_the_picture) {
  const std::vector<std::uint8_t> first = draw(request());
  EXPECT_NE(draw(request("a blue car")), first);
  GenerationRequest changed = request();
  changed.seed = 12;
  EXPECT_NE(draw(changed), first);
  changed = request();
  changed.negative_prompt = "apple";
  EXPECT_NE(draw(changed), first);
  changed = request();
  changed.guidance_scale = 2;
  EXPECT_NE(draw(changed), first);
}

TEST_F(PipelineTest, guidance_of_one_and_below_ignores_the_negative_prompt) {
  GenerationRequest plain = request();
  plain.guidance_scale = 1;
  GenerationRequest with_negative = plain;
  with_negative.negative_prompt = "cat";
  with_negative.guidance_scale = 0;
  EXPECT_EQ(draw(plain), draw(with_negative));
}

TEST_F(PipelineTest, every_size_the_model_names_can_be_drawn) {
  for (const auto& [width, height] : {std::pair{128, 384}, {384, 128}, {144, 208}, {384, 384}}) {
    GenerationRequest wanted = request();
    wanted.width = width;
    wanted.height = height;
    wanted.steps = 1;
    EXPECT_EQ(draw(wanted).size(), static_cast<std::size_t>(width) * height * 3);
  }
}

TEST_F(PipelineTest, progress_counts_steps_and_pictures) {
  GenerationRequest wanted = request();
  wanted.image_count = 2;
  std::vector<std::pair<int, int>> steps;
  RunControl control;
  control.on_progress = [&](const generation::Progress& progress) {
    if (progress.stage == telemetry::kDenoise) steps.emplace_back(progress.image_index, progress.step);
  };
  ASSERT_TRUE(pipeline_->generate(wanted, control).ok());
  const std::vector<std::pair<int, int>> expected = {{0, 1}, {0, 2}, {0, 3}, {0, 4}, {1, 1}, {1, 2}, {1, 3}, {1, 4}};
  EXPECT_EQ(steps, expected);
}

TEST_F(PipelineTest, cancel_is_seen_at_the_next_step_border) {
  for (const bool keep : {false, true}) {
    GenerationRequest wanted = request();
    wanted.keep_partial = keep;
    RunControl control;
    control.on_progress = [&](const generation::Progress& progress) {
      if (progress.step == 2) control.cancel.cancel();
    };
    const auto result = pipeline_->generate(wanted, control);
    if (keep) {
      ASSERT_TRUE(result.ok());
      EXPECT_TRUE(result->interrupted);
      EXPECT_EQ(result->images.size(), 1u);
    } else {
      EXPECT_EQ(result.status().code(), ErrorCode::kCancelled);
    }
  }
}

TEST_F(PipelineTest, a_passed_deadline_ends_the_run) {
  RunControl control;
  control.deadline = system_clock().now();
  EXPECT_EQ(pipeline_->generate(request(), control).status().code(), ErrorCode::kDeadlineExceeded);
}

TEST_F(PipelineTest, predict_says_what_the_loop_itself_saw) {
  for (const char* sampler : {"euler", "heun"}) {  // one call a step, and two
    GenerationRequest wanted = request();
    wanted.sampler = sampler;
    std::vector<ModelCall> calls;
    std::vector<std::vector<float>> seen;
    pipeline_->set_call_observer([&](int step, float sigma, const TensorView& latents, const TensorView& velocity) {
      const auto copy = [](const TensorView& view) {
        return std::vector<float>(view.as<float>(), view.as<float>() + view.element_count());
      };
      calls.push_back({step, sigma, copy(latents)});
      seen.push_back(copy(velocity));
    });
    DenoiseState state = pipeline_->begin(wanted, 0).value();
    const Status status = pipeline_->advance(state, state.sampler.steps(), {});
    pipeline_->set_call_observer({});
    ASSERT_TRUE(status.ok()) << status.to_string();
    EXPECT_EQ(calls.size(), std::string(sampler) == "heun" ? 7u : 4u);
    EXPECT_EQ(calls.back().step, 3);

    const DenoiseState fresh = pipeline_->begin(wanted, 0).value();
    EXPECT_EQ(calls.front().latents, fresh.sampler.latents);
    int progress = 0;
    RunControl control;
    control.on_progress = [&](const generation::Progress& at) { progress = at.step; };
    const auto said = pipeline_->predict(fresh, calls, control);
    ASSERT_TRUE(said.ok()) << said.status().to_string();
    EXPECT_EQ(*said, seen) << sampler;
    EXPECT_EQ(progress, static_cast<int>(calls.size()));

    control.cancel.cancel();
    EXPECT_EQ(pipeline_->predict(fresh, calls, control).status().code(), ErrorCode::kCancelled);
    calls.front().sigma = 0.123f;
    EXPECT_EQ(pipeline_->predict(fresh, calls, {}).status().subject(), "calls");
  }
}

TEST_F(PipelineTest, nan_in_the_latents_is_named_with_its_step) {
  DenoiseState state = pipeline_->begin(request(), 0).value();
  state.sampler.latents[5] = std::numeric_limits<float>::quiet_NaN();
  const Status status = pipeline_->advance(state, 4, {});
  EXPECT_EQ(status.code(), ErrorCode::kInternal);
  EXPECT_THAT(status.to_string(), HasSubstr("after step 1 of 4"));
  EXPECT_EQ(pipeline_->decode(state).status().code(), ErrorCode::kInternal);
}

TEST_F(PipelineTest, forcing_every_reference_kernel_gives_nearly_the_same_picture) {
  LoadOptions fast, plain;
  fast.precision = plain.precision = LoadOptions::Precision::kF32;
  for (const char* op : {"matmul", "attention", "conv2d", "layer_norm", "gate_residual_norm", "group_norm"}) {
    plain.kernels[op] = "reference";
  }
  GenerationRequest wanted = request();
  wanted.steps = 1;
  const auto by_fast = load(fast)->generate(wanted, {});
  const auto by_plain = load(plain)->generate(wanted, {});
  ASSERT_TRUE(by_fast.ok() && by_plain.ok());
  const auto& a = by_fast->images[0].image.pixels;
  const auto& b = by_plain->images[0].image.pixels;
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1) << "value " << i;
}

TEST(LoadPipeline, flags_are_checked_by_name) {
  EXPECT_THAT(parse_load_options("f8", {}, 0).status().to_string(), HasSubstr("--precision"));
  EXPECT_THAT(parse_load_options("auto", {"attention"}, 0).status().to_string(), HasSubstr("op=row"));
  EXPECT_THAT(parse_load_options("auto", {"attention=nope"}, 0).status().to_string(), HasSubstr("nope"));
  EXPECT_THAT(parse_load_options("auto", {"paint=reference"}, 0).status().to_string(), HasSubstr("paint"));
  EXPECT_THAT(parse_vae_memory("tiles").status().to_string(), HasSubstr("--vae-memory"));
  EXPECT_THAT(parse_vram("low").status().to_string(),
              AllOf(HasSubstr("--vram"), HasSubstr("full, balanced or min"), HasSubstr("'low'")));
  EXPECT_THAT(parse_load_options("auto", {}, -1).status().to_string(), HasSubstr("--threads"));
  EXPECT_THAT(load_pipeline("/nonexistent", {}).status().to_string(), HasSubstr("/nonexistent"));
}

}  // namespace
}  // namespace octavo::pipeline
