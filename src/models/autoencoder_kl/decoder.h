// The decoder of AutoencoderKL (diffusers), channels last.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "layers/convolution.h"
#include "layers/linear.h"
#include "weights/checkpoint.h"

namespace octavo::models {

struct AutoencoderConfig {
  std::vector<std::int64_t> channels;  // block_out_channels, outermost first
  int layers_per_block = 2;
  std::int64_t latent_channels = 16;
  int groups = 32;
  float scaling_factor = 1.5305f;
  float shift_factor = 0.0609f;

  /// Pixels a side for one latent.
  int downscale() const { return 1 << (channels.size() - 1); }
  static Result<AutoencoderConfig> from_json(const boost::json::object& config, const std::string& file);
};

class AutoencoderDecoder {
 public:
  /// Takes the decoder's tensors; the encoder's ("encoder.*") may be there and are left alone.
  static Result<AutoencoderDecoder> load(device::Device& device, weights::CheckpointPart part, DType activation_dtype);

  /// latents [B, C, height, width] f32 in model space; out [B, f height, f width, 3] f32 in about [-1, 1], f = downscale().
  void decode(ops::ExecutionContext& context, const TensorView& latents, const TensorView& out) const;

  const AutoencoderConfig& config() const { return config_; }

 private:
  struct ResidualBlock {
    layers::GroupNorm norm1, norm2;
    layers::Convolution conv1, conv2;
    std::optional<layers::Convolution> shortcut;
    std::int64_t out_channels = 0;
  };
  struct Attention {
    layers::GroupNorm norm;
    layers::Linear qkv, out;
    std::int64_t channels = 0;
  };
  struct UpBlock {
    std::vector<ResidualBlock> residuals;
    std::optional<layers::Convolution> upsample;
  };
  static ResidualBlock load_residual(layers::LoadContext& load, const std::string& at, std::int64_t in,
                                     std::int64_t out, int groups);
  /// x and the result are the same buffer's two shapes; `spare` and `normed` hold as much.
  void run_residual(ops::ExecutionContext& context, const ResidualBlock& block, TensorView& x, TensorView& spare,
                    const TensorView& normed) const;
  void run_attention(ops::ExecutionContext& context, const TensorView& x, const TensorView& normed) const;

  AutoencoderConfig config_;
  std::string label_;
  DType dtype_ = DType::kF32;
  layers::Convolution conv_in_, conv_out_;
  std::vector<ResidualBlock> mid_;
  Attention attention_;
  std::vector<UpBlock> ups_;
  layers::GroupNorm norm_out_;
  std::shared_ptr<weights::WeightStore> weights_;
};

}  // namespace octavo::models
