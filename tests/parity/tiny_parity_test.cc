// octavo-tiny against diffusers (tools/reference/record_tiny.py): embeddings, one forward, latents, pictures.
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pipeline/pipeline.h"
#include "testing/expect_close.h"
#include "tests/parity/divergence_finder.h"
#include "tests/parity/fixture.h"

namespace octavo::parity {
namespace {

namespace fs = std::filesystem;
using generation::GenerationRequest;
using pipeline::DenoiseState;
using pipeline::Pipeline;

const fs::path kModel = fs::path(OCTAVO_SOURCE_DIR) / "models/octavo-tiny";
constexpr const char* kFixture = "tiny.safetensors";
constexpr const char* kRecord = "record the fixture anew with `python tools/reference/record_tiny.py`";

/// As hash_of_weights() of the recorder: FNV-1a over 64-bit words of every weight file, then its length.
std::string hash_of_weights() {
  std::uint64_t hash = 0xCBF29CE484222325ull;
  for (const char* part : {"text_encoder/model", "text_encoder_2/model", "text_encoder_3/model",
                           "transformer/diffusion_pytorch_model", "vae/diffusion_pytorch_model"}) {
    std::ifstream file(kModel / (std::string(part) + ".safetensors"), std::ios::binary);
    std::uint64_t length = 0;
    std::uint64_t word = 0;
    while (file.read(reinterpret_cast<char*>(&word), sizeof word) || file.gcount() > 0) {
      hash = (hash ^ word) * 0x100000001B3ull;
      length += static_cast<std::uint64_t>(file.gcount());
      word = 0;  // what a short last read does not fill
    }
    hash = (hash ^ length) * 0x100000001B3ull;
  }
  return fmt::format("{:016x}", hash);
}

struct Case {
  std::string name;
  GenerationRequest request;  // resolved
};

class TinyParity : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!fs::exists(fs::path(OCTAVO_SOURCE_DIR) / "tests/parity/fixtures" / kFixture)) return;
    fixture_.emplace(kFixture);
    const auto description = boost::json::parse(fixture_->metadata("tiny")).get_object();
    recorded_hash_ = description.at("weights").as_string();
    tapped_step_ = description.at("tapped_step").to_number<int>();
    pipeline::LoadOptions options;
    options.precision = pipeline::LoadOptions::Precision::kF32;
    auto loaded = pipeline::load_pipeline(kModel, options);
    ASSERT_TRUE(loaded.ok()) << loaded.status().to_string();
    pipeline_ = std::move(*loaded);
    for (const auto& entry : description.at("cases").as_array()) {
      GenerationRequest request;
      request.prompt = entry.at("prompt").as_string();
      request.negative_prompt = entry.at("negative_prompt").as_string();
      request.width = entry.at("width").to_number<int>();
      request.height = entry.at("height").to_number<int>();
      request.steps = entry.at("steps").to_number<int>();
      request.guidance_scale = entry.at("guidance_scale").to_number<double>();
      request.seed = entry.at("seed").to_number<std::int64_t>();
      request.image_count = entry.at("image_count").to_number<int>();
      auto resolved = generation::resolve(request, pipeline_->capabilities());
      ASSERT_TRUE(resolved.ok()) << resolved.status().to_string();
      cases_.push_back({std::string(entry.at("name").as_string()), *std::move(resolved)});
    }
  }
  static void TearDownTestSuite() {
    pipeline_.reset();
    fixture_.reset();
    cases_.clear();
  }
  void SetUp() override {
    if (!fixture_) GTEST_SKIP() << "tests/parity/fixtures/" << kFixture << " does not exist: " << kRecord;
    ASSERT_EQ(hash_of_weights(), recorded_hash_)
        << "models/octavo-tiny holds other weights than those that " << kFixture << " was recorded from: " << kRecord;
  }

  static const GenerationRequest& request_of(const std::string& name) {
    for (const Case& recorded : cases_) {
      if (recorded.name == name) return recorded.request;
    }
    OCTAVO_CHECK(false, "{} holds no case {}", kFixture, name);
  }

  static inline std::optional<Fixture> fixture_;
  static inline std::string recorded_hash_;
  static inline int tapped_step_ = 0;
  static inline std::unique_ptr<Pipeline> pipeline_;
  static inline std::vector<Case> cases_;
};

TEST_F(TinyParity, embeddings_equal_transformers_layer_by_layer) {
  pipeline_->clear_prompt_cache();
  DivergenceFinder taps(*fixture_, "unguided.");
  DenoiseState state = pipeline_->begin(request_of("unguided"), 0).value();
  pipeline_->set_tap(&taps);
  const Status status = pipeline_->advance(state, 1, {});
  pipeline_->set_tap(nullptr);
  ASSERT_TRUE(status.ok()) << status.to_string();
  EXPECT_EQ(taps.first_divergence(), "");
  const models::Sd35& model = pipeline_->model();
  EXPECT_EQ(taps.compared(), model.encoder_l.config().layers + 2 + model.encoder_g.config().layers + 2 +
                                 model.encoder_t5->config().layers + 1);
}

TEST_F(TinyParity, one_forward_equals_diffusers_block_by_block) {
  // From diffusers' own latents in the middle of the run: what came before cannot hide or add a difference.
  DenoiseState state = pipeline_->begin(request_of("square"), 0).value();
  const std::vector<float> latents = testing::to_floats((*fixture_)["square.latents_before_step"]);
  ASSERT_EQ(latents.size(), state.sampler.latents.size());
  state.sampler.latents = latents;
  state.sampler.step = tapped_step_;
  DivergenceFinder taps(*fixture_, "square.");
  pipeline_->set_tap(&taps);
  const Status status = pipeline_->advance(state, tapped_step_ + 1, {});
  pipeline_->set_tap(nullptr);
  ASSERT_TRUE(status.ok()) << status.to_string();
  EXPECT_EQ(taps.first_divergence(), "");
  // Two embeddings, image and text of every block (the last drops its text), the velocity.
  EXPECT_EQ(taps.compared(), 2 + 2 * pipeline_->model().mmdit.config().layers - 1 + 1);
}

TEST_F(TinyParity, final_latents_and_pictures_equal_diffusers) {
  for (const Case& recorded : cases_) {
    const TensorView latents = (*fixture_)[recorded.name + ".latents"];
    const TensorView pixels = (*fixture_)[recorded.name + ".pixels"];
    ASSERT_EQ(pixels.dim(0), recorded.request.image_count);
    for (int index = 0; index < recorded.request.image_count; ++index) {
      SCOPED_TRACE(recorded.name + ", picture " + std::to_string(index));
      DenoiseState state = pipeline_->begin(recorded.request, index).value();
      ASSERT_TRUE(pipeline_->advance(state, recorded.request.steps, {}).ok());
      const TensorView drawn(state.sampler.latents.data(), DType::kF32, state.sampler.shape);
      const auto latents_close = testing::expect_close(drawn, latents.slice(0, index, 1), testing::kTrajectoryF32);
      EXPECT_TRUE(latents_close);
      const auto picture = pipeline_->decode(state);
      ASSERT_TRUE(picture.ok()) << picture.status().to_string();
      const TensorView expected = pixels.slice(0, index, 1);
      const std::span expected_pixels(static_cast<const std::uint8_t*>(expected.data()), expected.byte_count());
      const auto picture_close =
          testing::expect_pictures_close(picture->pixels, expected_pixels, 3, testing::kPictureF32);
      EXPECT_TRUE(picture_close);
      const auto figures = [](const ::testing::AssertionResult& result) {
        const std::string message = result.message();
        return message.substr(0, message.find("; tolerance"));
      };
      std::cout << recorded.name << ' ' << index << ": latents " << figures(latents_close) << "\n  picture "
                << figures(picture_close) << '\n';
    }
  }
}

TEST_F(TinyParity, picture_i_of_a_batch_equals_the_single_run_with_seed_plus_i) {
  GenerationRequest batch = request_of("batch");
  batch.image_count = 3;
  batch.steps = 4;
  const auto together = pipeline_->generate(batch, {});
  ASSERT_TRUE(together.ok()) << together.status().to_string();
  ASSERT_EQ(together->images.size(), 3u);
  for (int i = 0; i < 3; ++i) {
    GenerationRequest single = batch;
    single.image_count = 1;
    single.seed = batch.seed + i;
    const auto alone = pipeline_->generate(single, {});
    ASSERT_TRUE(alone.ok()) << alone.status().to_string();
    EXPECT_EQ(alone->images[0].image.pixels, together->images[static_cast<std::size_t>(i)].image.pixels) << i;
  }
}

}  // namespace
}  // namespace octavo::parity
