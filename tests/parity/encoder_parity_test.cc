// The autoencoder's encoder on random weights against diffusers (tools/reference/record_image_input.py): three depths,
// one and two pictures, 16-bit weights of both kinds, tall and wide.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "models/autoencoder_kl/encoder.h"
#include "testing/expect_close.h"
#include "tests/parity/fixture.h"
#include "tests/parity/recipe_model.h"

namespace octavo::parity {
namespace {

using testing::expect_close;

/// Compares every tap that the fixture has.
class EncoderTaps final : public device::TapSink {
 public:
  explicit EncoderTaps(const Fixture& fixture) : fixture_(fixture) {}
  void on_tensor(std::string_view path, const TensorView& value) override {
    const std::string name(path);
    if (!fixture_.contains(name)) return;
    ++compared;
    EXPECT_TRUE(expect_close(value, fixture_[name], testing::kForwardF32)) << name;
  }
  int compared = 0;

 private:
  const Fixture& fixture_;
};

/// The moments of `picture`, after a dry run that sizes the arena.
std::vector<float> encode(const models::AutoencoderEncoder& encoder, device::Device& device, const TensorView& picture,
                          const Shape& moments_shape, device::TapSink* taps) {
  const auto stream = device.create_stream();
  device::Arena arena;
  device::ExecutionContext context(device, *stream, arena);
  std::vector<float> values(static_cast<std::size_t>(moments_shape.element_count()));
  const TensorView moments(values.data(), DType::kF32, moments_shape);
  testing::poison(moments);
  arena.set_measuring(true);
  encoder.encode(context, picture, moments);
  const std::size_t peak = arena.peak_bytes();
  arena.set_measuring(false);
  EXPECT_TRUE(arena.reserve(device, peak).ok());
  context.set_tap(taps);
  encoder.encode(context, picture, moments);
  return values;
}

class EncoderParity : public ::testing::TestWithParam<std::string> {
 protected:
  EncoderParity() : name_("image_input/" + GetParam() + ".safetensors"), fixture_(name_), model_(name_) {}
  std::string name_;
  Fixture fixture_;
  RecipeModel model_;
};

TEST_P(EncoderParity, equals_diffusers_stage_by_stage) {
  const auto device = device::create_cpu_device();
  const auto encoder = models::AutoencoderEncoder::load(*device, model_.part("vae"), DType::kF32);
  ASSERT_TRUE(encoder.ok()) << encoder.status().to_string();
  const TensorView recorded = fixture_["vae.encoder.conv_out"];
  EncoderTaps taps(fixture_);
  std::vector<float> moments = encode(*encoder, *device, fixture_["vae.picture"], recorded.shape(), &taps);
  EXPECT_EQ(taps.compared, GetParam() == "encoder_taps" ? 6 : 1);
  EXPECT_TRUE(expect_close(TensorView(moments.data(), DType::kF32, recorded.shape()), recorded, testing::kForwardF32));
}

TEST_P(EncoderParity, bf16_stays_near) {
  const auto device = device::create_cpu_device();
  const auto encoder = models::AutoencoderEncoder::load(*device, model_.part("vae"), DType::kBF16);
  ASSERT_TRUE(encoder.ok()) << encoder.status().to_string();
  const TensorView recorded = fixture_["vae.encoder.conv_out"];
  std::vector<float> moments = encode(*encoder, *device, fixture_["vae.picture"], recorded.shape(), nullptr);
  EXPECT_TRUE(expect_close(TensorView(moments.data(), DType::kF32, recorded.shape()), recorded, testing::kForwardBf16));
}

INSTANTIATE_TEST_SUITE_P(Recorded, EncoderParity, ::testing::Values("encoder_taps", "encoder_two_rows", "encoder_deep"),
                         [](const auto& tested) { return tested.param; });

}  // namespace
}  // namespace octavo::parity
