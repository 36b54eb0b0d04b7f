// The decoder of AutoencoderKL (diffusers), channels last.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "models/autoencoder_kl/blocks.h"
#include "models/autoencoder_kl/config.h"
#include "weights/checkpoint.h"

namespace octavo::models {

class AutoencoderDecoder {
 public:
  /// Takes the decoder's tensors; the encoder's ("encoder.*") may be there and are left alone.
  static Result<AutoencoderDecoder> load(device::Device& device, weights::CheckpointPart part, DType activation_dtype);

  /// latents [B, C, height, width] f32 in model space; out [B, f height, f width, 3] f32 in about [-1, 1], f =
  /// downscale().
  void decode(ops::ExecutionContext& context, const TensorView& latents, const TensorView& out) const;

  const AutoencoderConfig& config() const { return config_; }
  void set_memory(const AutoencoderMemory& memory) { memory_ = memory; }

 private:
  struct UpBlock {
    std::vector<AutoencoderResidual> residuals;
    std::optional<layers::Convolution> upsample;
  };

  void decode_whole(ops::ExecutionContext& context, const TensorView& latents, const TensorView& out) const;
  /// One picture.
  void decode_in_bands(ops::ExecutionContext& context, const TensorView& latents, const TensorView& out) const;
  /// The first convolution on latents as the checkpoint means them.
  void begin(ops::ExecutionContext& context, const TensorView& latents, const TensorView& x) const;

  AutoencoderConfig config_;
  AutoencoderMemory memory_;
  std::string label_;
  DType dtype_ = DType::kF32;
  layers::Convolution conv_in_, conv_out_;
  AutoencoderMiddle mid_;
  std::vector<UpBlock> ups_;
  layers::GroupNorm norm_out_;
  std::shared_ptr<weights::WeightStore> weights_;
};

}  // namespace octavo::models
