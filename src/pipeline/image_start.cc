// The start from a picture: pixels to latents, latents to the noise level that strength asks for.
#include <algorithm>
#include <cmath>

#include "pipeline/pipeline.h"

namespace octavo::pipeline {
namespace {

/// The values a distribution's sample is made of, in the stream's order [C, height, width], from the encoder's channels
/// last: mean + deviation * noise, then (z - shift) * scaling, as diffusers.
std::vector<float> sample_latents(const std::vector<float>& moments, const std::vector<float>& noise,
                                  const models::AutoencoderConfig& config) {
  const auto channels = static_cast<std::size_t>(config.latent_channels);
  const std::size_t positions = noise.size() / channels;
  constexpr float kLowestLogVariance = -30.0f, kHighestLogVariance = 20.0f;  // DiagonalGaussianDistribution's
  std::vector<float> latents(noise.size());
  for (std::size_t c = 0; c < channels; ++c) {
    for (std::size_t i = 0; i < positions; ++i) {
      const float mean = moments[i * 2 * channels + c];
      const float log_variance =
          std::clamp(moments[i * 2 * channels + channels + c], kLowestLogVariance, kHighestLogVariance);
      const float z = mean + std::exp(0.5f * log_variance) * noise[c * positions + i];
      latents[c * positions + i] = (z - config.shift_factor) * config.scaling_factor;
    }
  }
  return latents;
}

/// What the repainted area holds before denoising begins.
void fill_masked(std::vector<float>& latents, const KnownLatents& known, generation::MaskedContent content) {
  if (content == generation::MaskedContent::kOriginal) return;
  const std::size_t positions = known.mask.size();
  for (std::size_t i = 0; i < latents.size(); ++i) {
    if (known.mask[i % positions] == 0.0f) continue;
    latents[i] = content == generation::MaskedContent::kLatentNoise ? known.noise[i] : 0.0f;
  }
}

}  // namespace

Result<const Pipeline::EncodedInput*> Pipeline::encode_input(const generation::GenerationRequest& request) {
  if (input_ && input_->matches(request)) return &*input_;
  if (!model_.encoder) return invalid_argument("init_image", "this model's autoencoder has no encoder");
  const models::AutoencoderConfig& config = model_.encoder->config();
  const int downscale = config.downscale();
  OCTAVO_ASSIGN_OR_RETURN(InputPixels pixels, prepare_pixels(request, downscale));
  const Shape picture_shape{1, request.height, request.width, 3};
  const Shape moments_shape{1, request.height / downscale, request.width / downscale, 2 * config.latent_channels};
  const auto dry = [](const Shape& shape) { return TensorView(static_cast<void*>(nullptr), DType::kF32, shape); };
  OCTAVO_RETURN_IF_ERROR(
      reserve_for([&] { model_.encoder->encode(*context_, dry(picture_shape), dry(moments_shape)); }));

  std::vector<float> values(static_cast<std::size_t>(picture_shape.element_count()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = 2.0f * (static_cast<float>(pixels.picture.pixels[i]) / 255.0f) - 1.0f;
  }
  EncodedInput encoded;
  encoded.request = request;
  encoded.mask = std::move(pixels.mask);
  encoded.moments.resize(static_cast<std::size_t>(moments_shape.element_count()));
  const std::size_t moments_bytes = encoded.moments.size() * sizeof(float);
  OCTAVO_ASSIGN_OR_RETURN(const device::Buffer picture, allocate(values.size() * sizeof(float)));
  OCTAVO_ASSIGN_OR_RETURN(const device::Buffer moments, allocate(moments_bytes));
  device_->copy_to_device(*stream_, picture.data(), values.data(), picture.byte_count());
  model_.encoder->encode(*context_, TensorView(picture.data(), DType::kF32, picture_shape),
                         TensorView(moments.data(), DType::kF32, moments_shape));
  device_->copy_to_host(*stream_, encoded.moments.data(), moments.data(), moments_bytes);
  stream_->synchronize();
  if (!std::all_of(encoded.moments.begin(), encoded.moments.end(), [](float v) { return std::isfinite(v); })) {
    return internal_error("encode_input", "the encoded picture holds NaN or infinity");
  }
  input_ = std::move(encoded);
  return &*input_;
}

Status Pipeline::start_from_image(DenoiseState& state, float sigma) {
  OCTAVO_ASSIGN_OR_RETURN(const EncodedInput* input, encode_input(state.request));
  sampling::SamplerState& sampler = state.sampler;
  // The stream of a seed gives the distribution's sample first, the noise of the start second, as diffusers draws them.
  const generation::ImageSeeds seeds = generation::image_seeds(state.request, state.image_index);
  sampling::NoiseStream stream(sampler.noise.front().source(), seeds.seed);
  std::vector<float> posterior(sampler.latents.size());
  KnownLatents known;
  known.noise.resize(sampler.latents.size());
  stream.normal(posterior);
  stream.normal(known.noise);
  if (state.request.subseed_strength != 0) {
    std::vector<float> other(known.noise.size());
    sampling::NoiseStream(stream.source(), seeds.subseed).normal(other);
    const Shape& shape = sampler.shape;
    sampling::slerp_columns(state.request.subseed_strength, Shape{shape[1], shape[2], shape[3]}, known.noise, other);
  }
  known.image = sample_latents(input->moments, posterior, model_.encoder->config());
  known.mask = input->mask;
  sampler.noise.front() = stream;
  if (!known.mask.empty()) fill_masked(known.image, known, state.request.masked_content);
  for (std::size_t i = 0; i < sampler.latents.size(); ++i) {
    const float noisy = sigma * known.noise[i];
    const float from_image = (1.0f - sigma) * known.image[i];
    sampler.latents[i] = noisy + from_image;
  }
  if (!known.mask.empty()) state.known = std::move(known);
  return {};
}

bool Pipeline::EncodedInput::matches(const generation::GenerationRequest& other) const {
  return request.init_image == other.init_image && request.mask == other.mask && request.width == other.width &&
         request.height == other.height && request.resize_mode == other.resize_mode &&
         request.mask_blur == other.mask_blur && request.mask_invert == other.mask_invert &&
         request.only_masked == other.only_masked && request.mask_padding == other.mask_padding;
}

}  // namespace octavo::pipeline
