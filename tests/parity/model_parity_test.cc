// Encoders, transformer and decoder on random weights against transformers and diffusers
// (tools/reference/record_models.py): several heads, depths and widths, 16-bit weights of both kinds, non-square
// latents, one to four rows, T5 lengths 77, 256 and 512. What differs is named by the first tap that does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "models/autoencoder_kl/decoder.h"
#include "models/clip/clip_text_model.h"
#include "models/mmdit/mmdit.h"
#include "models/t5/t5_encoder.h"
#include "testing/expect_close.h"
#include "tests/parity/divergence_finder.h"
#include "tests/parity/fixture.h"
#include "tests/parity/recipe_model.h"

namespace octavo::parity {
namespace {

using testing::expect_close;
using testing::kForwardBf16;
using testing::kForwardF32;
using testing::Tolerance;

constexpr DType kF32 = DType::kF32;

/// A device, and a forward run twice on it: dry to size the arena, then for good.
class Machine {
 public:
  Machine() : device_(device::create_cpu_device()), stream_(device_->create_stream()) {}
  device::Device& device() { return *device_; }

  template <typename Forward>
  void run(device::TapSink* taps, const Forward& forward) {
    device::ExecutionContext context(*device_, *stream_, arena_);
    arena_.set_measuring(true);
    forward(context);
    const std::size_t peak = arena_.peak_bytes();
    arena_.set_measuring(false);
    ASSERT_TRUE(arena_.reserve(*device_, peak).ok());
    context.set_tap(taps);
    forward(context);
  }

 private:
  std::unique_ptr<device::Device> device_;
  std::unique_ptr<device::Stream> stream_;
  device::Arena arena_;
};

struct Tensor {
  explicit Tensor(Shape shape)
      : values(static_cast<std::size_t>(shape.element_count())), view(values.data(), kF32, shape) {
    testing::poison(view);
  }
  std::vector<float> values;
  TensorView view;
};

class ModelParity : public ::testing::TestWithParam<std::string> {
 protected:
  ModelParity() : name_("models/" + GetParam() + ".safetensors"), fixture_(name_), model_(name_) {}

  void check_clip(const std::string& part) {
    if (!model_.has_part(part)) return;
    const auto loaded = models::ClipTextModel::load(machine_.device(), model_.part(part), kF32);
    ASSERT_TRUE(loaded.ok()) << loaded.status().to_string();
    const TensorView ids = fixture_[part + ".ids"];
    std::vector<int> ends;
    for (std::int64_t row = 0; row < ids.dim(0); ++row) {
      const auto* first = ids.as<std::int32_t>() + row * ids.dim(1);
      ends.push_back(loaded->eos_row(std::vector<std::int32_t>(first, first + ids.dim(1))));
    }
    const Tensor hidden(fixture_[part + ".hidden"].shape()), pooled(fixture_[part + ".pooled"].shape());
    DivergenceFinder taps(fixture_);
    machine_.run(&taps, [&](device::ExecutionContext& context) {
      loaded->encode(context, ids, ends, hidden.view, pooled.view);
    });
    EXPECT_EQ(taps.first_divergence(), "");
    EXPECT_TRUE(expect_close(hidden.view, fixture_[part + ".hidden"], kForwardF32)) << part;
    EXPECT_TRUE(expect_close(pooled.view, fixture_[part + ".pooled"], kForwardF32)) << part;
  }

  /// Runs the transformer on rows [begin, begin + count) of the fixture.
  Tensor run_transformer(const models::Mmdit& mmdit, std::int64_t begin, std::int64_t count, device::TapSink* taps,
                         std::span<const int> skip_layers = {}) {
    const auto rows = [&](const char* argument) {
      return fixture_[std::string("transformer.") + argument].slice(0, begin, count);
    };
    const TensorView latents = rows("latents"), text = rows("text");
    const Tensor context_rows(Shape{count, text.dim(1), mmdit.config().width});
    const Tensor modulations(Shape{count, mmdit.modulation_width()});
    Tensor velocity(latents.shape());
    const models::MmditConditioning conditioning{context_rows.view, modulations.view, count};
    machine_.run(taps, [&](device::ExecutionContext& context) {
      mmdit.prepare(context, text, rows("pooled"), fixture_["transformer.timesteps"], conditioning);
      mmdit.predict(context, latents, 0, conditioning, velocity.view, skip_layers);
    });
    return velocity;
  }

  std::string name_;
  Fixture fixture_;
  RecipeModel model_;
  Machine machine_;
};

TEST_P(ModelParity, clip_l_equals_transformers) { check_clip("text_encoder"); }
TEST_P(ModelParity, clip_g_equals_transformers) { check_clip("text_encoder_2"); }

TEST_P(ModelParity, t5_equals_transformers) {
  if (!model_.has_part("text_encoder_3")) return;
  const auto loaded = models::T5Encoder::load(machine_.device(), model_.part("text_encoder_3"), kF32);
  ASSERT_TRUE(loaded.ok()) << loaded.status().to_string();
  const TensorView recorded = fixture_["text_encoder_3.last_hidden_state"];
  const Tensor hidden(recorded.shape());
  DivergenceFinder taps(fixture_);
  machine_.run(&taps, [&](device::ExecutionContext& context) {
    loaded->encode(context, fixture_["text_encoder_3.ids"], hidden.view);
  });
  EXPECT_EQ(taps.first_divergence(), "");
  EXPECT_TRUE(expect_close(hidden.view, recorded, kForwardF32));
}

TEST_P(ModelParity, transformer_equals_diffusers_block_by_block) {
  const auto mmdit = models::Mmdit::load(machine_.device(), model_.part("transformer"), kF32);
  ASSERT_TRUE(mmdit.ok()) << mmdit.status().to_string();
  const TensorView recorded = fixture_["transformer.velocity"];
  DivergenceFinder taps(fixture_);
  const Tensor velocity = run_transformer(*mmdit, 0, recorded.dim(0), &taps);
  EXPECT_EQ(taps.first_divergence(), "");
  // Three embeddings, image and text of every block (the last drops its text), the velocity.
  EXPECT_EQ(taps.compared(), 3 + 2 * mmdit->config().layers - 1 + 1);
  EXPECT_TRUE(expect_close(velocity.view, recorded, kForwardF32));
}

TEST_P(ModelParity, transformer_equals_diffusers_at_every_batch_size) {
  const auto mmdit = models::Mmdit::load(machine_.device(), model_.part("transformer"), kF32);
  ASSERT_TRUE(mmdit.ok()) << mmdit.status().to_string();
  const TensorView recorded = fixture_["transformer.velocity"];
  for (std::int64_t rows = 1; rows < recorded.dim(0); ++rows) {
    const Tensor velocity = run_transformer(*mmdit, recorded.dim(0) - rows, rows, nullptr);
    EXPECT_TRUE(expect_close(velocity.view, recorded.slice(0, recorded.dim(0) - rows, rows), kForwardF32)) << rows;
  }
}

TEST_P(ModelParity, forward_with_skipped_layers_equals_diffusers) {
  if (!fixture_.contains("transformer.skipped_velocity")) return;
  const auto mmdit = models::Mmdit::load(machine_.device(), model_.part("transformer"), kF32);
  ASSERT_TRUE(mmdit.ok()) << mmdit.status().to_string();
  const TensorView recorded = fixture_["transformer.skipped_velocity"], layers = fixture_["transformer.skip_layers"];
  const std::span<const int> skip_layers(layers.as<std::int32_t>(), static_cast<std::size_t>(layers.dim(0)));
  const Tensor velocity = run_transformer(*mmdit, 0, recorded.dim(0), nullptr, skip_layers);
  EXPECT_TRUE(expect_close(velocity.view, recorded, kForwardF32));
}

TEST_P(ModelParity, transformer_in_bf16_stays_near) {
  const auto mmdit = models::Mmdit::load(machine_.device(), model_.part("transformer"), DType::kBF16);
  ASSERT_TRUE(mmdit.ok()) << mmdit.status().to_string();
  const TensorView recorded = fixture_["transformer.velocity"];
  const Tensor velocity = run_transformer(*mmdit, 0, recorded.dim(0), nullptr);
  EXPECT_TRUE(expect_close(velocity.view, recorded, kForwardBf16));
}

TEST_P(ModelParity, transformer_rows_alone_equal_rows_in_a_batch) {
  for (const DType dtype : {kF32, DType::kBF16}) {
    const auto mmdit = models::Mmdit::load(machine_.device(), model_.part("transformer"), dtype);
    ASSERT_TRUE(mmdit.ok()) << mmdit.status().to_string();
    const std::int64_t rows = fixture_["transformer.latents"].dim(0);
    const Tensor together = run_transformer(*mmdit, 0, rows, nullptr);
    for (std::int64_t row = 0; row < rows; ++row) {
      const Tensor alone = run_transformer(*mmdit, row, 1, nullptr);
      EXPECT_EQ(std::memcmp(alone.values.data(), together.values.data() + row * alone.view.element_count(),
                            alone.view.byte_count()),
                0)
          << "row " << row << " in " << dtype_name(dtype);
    }
  }
}

TEST_P(ModelParity, decoder_equals_diffusers_stage_by_stage) {
  if (!model_.has_part("vae")) return;
  const auto decoder = models::AutoencoderDecoder::load(machine_.device(), model_.part("vae"), kF32);
  ASSERT_TRUE(decoder.ok()) << decoder.status().to_string();
  const TensorView recorded = fixture_["vae.decoder.conv_out"];
  const Tensor picture(recorded.shape());
  DivergenceFinder taps(fixture_);
  machine_.run(&taps, [&](device::ExecutionContext& context) {
    decoder->decode(context, fixture_["vae.latents"], picture.view);
  });
  EXPECT_EQ(taps.first_divergence(), "");
  EXPECT_TRUE(expect_close(picture.view, recorded, kForwardF32));
}

TEST(DivergenceFinder, names_the_first_tap_that_differs) {
  const Fixture fixture("models/two_heads.safetensors");
  DivergenceFinder taps(fixture);
  const auto show = [&](const std::string& tap, std::int64_t count, std::int64_t wrong_from) {
    // A tensor whose thinned values are the recorded ones, from `wrong_from` on a thousandth too large.
    const TensorView recorded = fixture[tap];
    std::vector<float> values(static_cast<std::size_t>(count), 0.0f);
    for (std::int64_t i = 0; i < recorded.element_count(); ++i) {
      values[i * DivergenceFinder::kTapStride] = recorded.f32()[i] * (i < wrong_from ? 1.0f : 1.001f);
    }
    taps.on_tensor(tap, TensorView(values.data(), kF32, Shape{count}));
  };
  constexpr std::int64_t kAll = 1 << 20;
  const std::string blocks = "transformer.transformer_blocks.";
  show(blocks + "0.image", 4 * 15 * 128, kAll);
  EXPECT_EQ(taps.first_divergence(), "");
  show(blocks + "1.image", 4 * 15 * 128, 3);
  show(blocks + "2.image", 4 * 15 * 128, 0);
  EXPECT_THAT(taps.first_divergence(), ::testing::StartsWith(blocks + "1.image: relative error"));
  taps.on_tensor("not.recorded", fixture[blocks + "0.image"]);
  EXPECT_EQ(taps.compared(), 3);
}

TEST(DivergenceFinder, a_tap_of_another_size_is_a_divergence) {
  const Fixture fixture("models/two_heads.safetensors");
  DivergenceFinder taps(fixture);
  std::vector<float> values(100);
  taps.on_tensor("transformer.pos_embed", TensorView(values.data(), kF32, Shape{100}));
  EXPECT_THAT(taps.first_divergence(), ::testing::StartsWith("transformer.pos_embed: shape [100]"));
}

INSTANTIATE_TEST_SUITE_P(Recorded, ModelParity,
                         ::testing::Values("small", "two_heads", "three_heads", "medium", "medium_mixed"),
                         [](const auto& tested) { return tested.param; });

}  // namespace
}  // namespace octavo::parity
