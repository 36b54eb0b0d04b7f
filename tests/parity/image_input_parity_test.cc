// Pictures as input, end to end on a small random model: against diffusers' img2img and inpaint pipelines
// (tools/reference/record_image_input.py), and what a request may rely on.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "pipeline/pipeline.h"
#include "testing/expect_close.h"
#include "tests/parity/fixture.h"
#include "tests/parity/recipe_model.h"

namespace octavo::parity {
namespace {

using generation::GenerationRequest;
using pipeline::DenoiseState;
using testing::expect_close;
namespace fs = std::filesystem;

constexpr const char* kFixture = "image_input/pipeline.safetensors";

/// The recipe's parts with the embedded model's tokenizers and scheduler: a folder that loads.
class WholeModel {
 public:
  WholeModel() : model_(kFixture) {
    const fs::path tiny = fs::path(OCTAVO_SOURCE_DIR) / "models/octavo-tiny";
    for (const char* folder : {"tokenizer", "tokenizer_2", "scheduler"}) {
      fs::copy(tiny / folder, model_.root() / folder, fs::copy_options::recursive);
    }
  }
  using VaeMemory = pipeline::LoadOptions::VaeMemory;
  std::unique_ptr<pipeline::Pipeline> load(VaeMemory vae_memory = VaeMemory::kAuto) const {
    pipeline::LoadOptions options;
    options.vae_memory = vae_memory;
    options.precision = pipeline::LoadOptions::Precision::kF32;
    auto loaded = pipeline::load_pipeline(model_.root(), options);
    OCTAVO_CHECK(loaded.ok(), "{}", loaded.status().to_string());
    return std::move(*loaded);
  }

 private:
  RecipeModel model_;
};

std::shared_ptr<const image::Image> to_image(const TensorView& view) {
  image::Image picture;
  picture.height = static_cast<int>(view.dim(0));
  picture.width = static_cast<int>(view.dim(1));
  picture.channels = view.rank() == 3 ? 3 : 1;
  const auto* first = static_cast<const std::uint8_t*>(view.data());
  picture.pixels.assign(first, first + picture.byte_count());
  return std::make_shared<const image::Image>(std::move(picture));
}

class ImageInput : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    model_ = std::make_unique<WholeModel>();
    pipeline_ = model_->load();
    fixture_ = std::make_unique<Fixture>(kFixture);
  }
  static void TearDownTestSuite() {
    pipeline_.reset();
    fixture_.reset();
    model_.reset();
  }
  /// What the recorder asked diffusers for.
  static GenerationRequest request(double strength, bool masked) {
    GenerationRequest wanted;
    wanted.prompt = "a red apple";
    wanted.negative_prompt = "cat";
    wanted.steps = 6;
    wanted.guidance_scale = 4.5;
    wanted.seed = 11;
    wanted.init_image = to_image((*fixture_)["init"]);
    if (masked) wanted.mask = to_image((*fixture_)["mask"]);
    wanted.mask_blur = 0;
    wanted.strength = strength;
    auto resolved = generation::resolve(wanted, pipeline_->capabilities());
    OCTAVO_CHECK(resolved.ok(), "{}", resolved.status().to_string());
    return *resolved;
  }
  static DenoiseState run(const GenerationRequest& wanted) {
    DenoiseState state = pipeline_->begin(wanted, 0).value();
    EXPECT_TRUE(pipeline_->advance(state, state.sampler.steps(), {}).ok());
    return state;
  }
  static std::vector<std::uint8_t> draw(const GenerationRequest& wanted) {
    const auto result = pipeline_->generate(wanted, {});
    EXPECT_TRUE(result.ok()) << result.status().to_string();
    return result->images.front().image.pixels;
  }
  static void expect_latents(const std::string& name, const GenerationRequest& wanted) {
    DenoiseState state = run(wanted);
    EXPECT_TRUE(expect_close(TensorView(state.sampler.latents.data(), DType::kF32, state.sampler.shape),
                             (*fixture_)[name], testing::kForwardF32))
        << name;
  }
  static inline std::unique_ptr<WholeModel> model_;
  static inline std::unique_ptr<pipeline::Pipeline> pipeline_;
  static inline std::unique_ptr<Fixture> fixture_;
};

TEST_F(ImageInput, img2img_equals_diffusers_at_every_strength) {
  expect_latents("img2img.0.3.latents", request(0.3, false));
  expect_latents("img2img.0.6.latents", request(0.6, false));
  expect_latents("img2img.1.0.latents", request(1.0, false));
}

TEST_F(ImageInput, inpainting_equals_diffusers) {
  expect_latents("inpaint.0.5.latents", request(0.5, true));
  expect_latents("inpaint.1.0.latents", request(1.0, true));
}

TEST_F(ImageInput, inpainting_decodes_with_the_shift_that_diffusers_leaves_out) {
  const GenerationRequest wanted = request(1.0, true);
  DenoiseState state = run(wanted);
  state.request.mask = nullptr;  // the drawn picture itself, before the original is laid back
  state.known.reset();
  const auto drawn = pipeline_->decode(state).value().pixels;
  const auto recorded = to_image((*fixture_)["inpaint.1.0.pixels"])->pixels;
  const auto as_diffusers = to_image((*fixture_)["inpaint.1.0.pixels_as_diffusers"])->pixels;
  ASSERT_EQ(drawn.size(), recorded.size());
  double from_diffusers = 0;
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    ASSERT_NEAR(drawn[i], recorded[i], 1) << "value " << i;
    from_diffusers += std::abs(drawn[i] - as_diffusers[i]) / static_cast<double>(drawn.size());
  }
  EXPECT_GT(from_diffusers, 0.1);
}

TEST_F(ImageInput, a_run_parked_at_every_step_ends_in_the_same_bits) {
  for (const bool masked : {false, true}) {
    const GenerationRequest wanted = request(0.7, masked);
    const DenoiseState straight = run(wanted);
    std::vector<std::byte> parked = pipeline_->begin(wanted, 0).value().to_bytes();
    for (int step = 1; step <= straight.sampler.steps(); ++step) {
      const auto other_worker = model_->load();  // it has never seen the request
      DenoiseState state = DenoiseState::from_bytes(parked).value();
      ASSERT_TRUE(other_worker->advance(state, step, {}).ok());
      parked = state.to_bytes();
    }
    const DenoiseState resumed = DenoiseState::from_bytes(parked).value();
    EXPECT_EQ(resumed.sampler.latents, straight.sampler.latents);
    EXPECT_EQ(pipeline_->decode(resumed)->pixels, pipeline_->decode(straight)->pixels);
    EXPECT_EQ(resumed.to_bytes(), straight.to_bytes());
  }
}

TEST_F(ImageInput, shortened_states_are_refused) {
  const std::vector<std::byte> bytes = pipeline_->begin(request(0.5, true), 0).value().to_bytes();
  for (std::size_t length = 0; length < bytes.size(); length += 997) {
    EXPECT_EQ(DenoiseState::from_bytes(std::span(bytes).first(length)).status().code(), ErrorCode::kDataCorruption);
  }
}

TEST_F(ImageInput, picture_does_not_depend_on_neighbours_or_caches) {
  for (const bool masked : {false, true}) {
    GenerationRequest wanted = request(0.6, masked);
    pipeline_->clear_input_cache();
    const std::vector<std::uint8_t> alone = draw(wanted);
    EXPECT_EQ(draw(wanted), alone) << "init image taken from the cache";
    wanted.seed = 10;
    wanted.image_count = 2;
    const auto batch = pipeline_->generate(wanted, {});
    ASSERT_TRUE(batch.ok());
    EXPECT_EQ(batch->images[1].image.pixels, alone);
    EXPECT_NE(batch->images[0].image.pixels, alone);
  }
}

TEST_F(ImageInput, strength_counts_the_steps_and_how_far_the_picture_moves) {
  EXPECT_EQ(pipeline_->begin(request(0.01, false), 0)->sampler.steps(), 1);
  EXPECT_EQ(pipeline_->begin(request(0.5, false), 0)->sampler.steps(), 3);
  EXPECT_EQ(pipeline_->begin(request(1.0, false), 0)->sampler.steps(), 6);
}

TEST_F(ImageInput, what_the_mask_keeps_is_the_original_pixel_for_pixel) {
  for (const bool only_masked : {false, true}) {
    GenerationRequest wanted = request(0.8, true);
    wanted.only_masked = only_masked;
    const auto drawn = draw(wanted);
    const auto& before = wanted.init_image->pixels;
    ASSERT_EQ(drawn.size(), before.size());
    std::size_t changed = 0;
    for (std::size_t i = 0; i < wanted.mask->pixels.size(); ++i) {
      const bool same = std::memcmp(&drawn[3 * i], &before[3 * i], 3) == 0;
      if (wanted.mask->pixels[i] == 0) {
        ASSERT_TRUE(same) << "pixel " << i;
      }
      changed += same ? 0 : 1;
    }
    EXPECT_GT(changed, 1000u);
  }
}

TEST_F(ImageInput, an_inverted_mask_repaints_the_rest) {
  GenerationRequest wanted = request(0.8, true);
  wanted.mask_invert = true;
  const auto drawn = draw(wanted);
  const auto& before = wanted.init_image->pixels;
  for (std::size_t i = 0; i < wanted.mask->pixels.size(); ++i) {
    if (wanted.mask->pixels[i] == 255) {
      ASSERT_EQ(std::memcmp(&drawn[3 * i], &before[3 * i], 3), 0) << "pixel " << i;
    }
  }
}

TEST_F(ImageInput, masked_content_decides_what_the_run_starts_from) {
  GenerationRequest wanted = request(0.5, true);
  const DenoiseState original = pipeline_->begin(wanted, 0).value();
  wanted.masked_content = generation::MaskedContent::kLatentNothing;
  const DenoiseState nothing = pipeline_->begin(wanted, 0).value();
  wanted.masked_content = generation::MaskedContent::kLatentNoise;
  const DenoiseState noise = pipeline_->begin(wanted, 0).value();
  const std::size_t positions = original.known->mask.size();
  for (std::size_t i = 0; i < original.sampler.latents.size(); ++i) {
    const bool painted = original.known->mask[i % positions] == 1.0f;
    EXPECT_EQ(nothing.known->image[i], painted ? 0.0f : original.known->image[i]);
    EXPECT_EQ(noise.known->image[i], painted ? original.known->noise[i] : original.known->image[i]);
  }
}

TEST_F(ImageInput, other_sizes_are_fitted) {
  GenerationRequest wanted = request(0.4, false);
  wanted.steps = 2;
  wanted.width = 160;
  wanted.height = 128;
  std::vector<std::vector<std::uint8_t>> drawn;
  for (const auto mode : {image::FitMode::kStretch, image::FitMode::kCrop, image::FitMode::kFill}) {
    wanted.resize_mode = mode;
    drawn.push_back(draw(wanted));
    EXPECT_EQ(drawn.back().size(), 160u * 128 * 3);
  }
  EXPECT_NE(drawn[0], drawn[1]);
  EXPECT_NE(drawn[1], drawn[2]);
}

TEST_F(ImageInput, the_autoencoder_in_bands_draws_the_same_picture) {
  const GenerationRequest wanted = request(0.6, false);
  const auto whole = draw(wanted);
  const auto in_bands = model_->load(pipeline::LoadOptions::VaeMemory::kBands)->generate(wanted, {});
  ASSERT_TRUE(in_bands.ok());
  const auto& bands = in_bands->images[0].image.pixels;
  for (std::size_t i = 0; i < whole.size(); ++i) ASSERT_NEAR(bands[i], whole[i], 1) << "value " << i;
}

TEST_F(ImageInput, a_black_mask_is_refused) {
  for (const bool only_masked : {false, true}) {
    GenerationRequest wanted = request(0.8, true);
    wanted.only_masked = only_masked;
    image::Image black = *wanted.mask;
    std::fill(black.pixels.begin(), black.pixels.end(), std::uint8_t{0});
    wanted.mask = std::make_shared<const image::Image>(std::move(black));
    const Status status = pipeline_->generate(wanted, {}).status();
    EXPECT_EQ(status.code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(status.subject(), "mask");
  }
}

}  // namespace
}  // namespace octavo::parity
