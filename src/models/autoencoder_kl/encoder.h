// The encoder of AutoencoderKL (diffusers), channels last.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "models/autoencoder_kl/blocks.h"
#include "models/autoencoder_kl/config.h"
#include "weights/checkpoint.h"

namespace octavo::models {

class AutoencoderEncoder {
 public:
  /// Whether a part has an encoder at all: some files carry the decoder alone.
  static bool present(const weights::WeightStore& weights);
  /// Takes the encoder's tensors; the decoder's ("decoder.*") may be there and are left alone.
  static Result<AutoencoderEncoder> load(device::Device& device, weights::CheckpointPart part, DType activation_dtype);

  /// picture [B, height, width, 3] f32 in [-1, 1], sides multiples of downscale(); moments
  /// [B, height / f, width / f, 2 C] f32: the mean of each latent's distribution, then the logarithm of its variance.
  void encode(ops::ExecutionContext& context, const TensorView& picture, const TensorView& moments) const;

  const AutoencoderConfig& config() const { return config_; }
  void set_memory(const AutoencoderMemory& memory) { memory_ = memory; }

 private:
  struct DownBlock {
    std::vector<AutoencoderResidual> residuals;
    std::optional<layers::Convolution> downsample;
  };

  void encode_whole(ops::ExecutionContext& context, const TensorView& picture, const TensorView& moments) const;
  /// One picture.
  void encode_in_bands(ops::ExecutionContext& context, const TensorView& picture, const TensorView& moments) const;
  /// From the last level to the moments; `x` at the size of latents.
  void finish(ops::ExecutionContext& context, TensorView x, TensorView spare, const TensorView& normed,
              const TensorView& moments) const;

  AutoencoderConfig config_;
  AutoencoderMemory memory_;
  std::string label_;
  DType dtype_ = DType::kF32;
  layers::Convolution conv_in_, conv_out_;
  std::vector<DownBlock> downs_;
  AutoencoderMiddle mid_;
  layers::GroupNorm norm_out_;
  std::shared_ptr<weights::WeightStore> weights_;
};

}  // namespace octavo::models
