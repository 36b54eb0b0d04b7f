// CLIP's text tower with projection (transformers CLIPTextModelWithProjection): the L and G encoders of SD3.5.
#pragma once

#include <string>
#include <vector>

#include "layers/linear.h"
#include "weights/checkpoint.h"

namespace octavo::models {

struct ClipConfig {
  int layers = 0;
  std::int64_t width = 0;
  int heads = 0;
  std::int64_t feed_forward = 0;
  std::int64_t vocabulary = 0;
  std::int64_t positions = 77;
  std::int64_t projection = 0;
  ops::Activation activation = ops::Activation::kQuickGelu;
  float eps = 1e-5f;
  int eos_token_id = 2;  // 2 = the legacy rule: the row of the largest id

  static Result<ClipConfig> from_json(const boost::json::object& config, const std::string& file);
};

class ClipTextModel {
 public:
  /// Every tensor of `part` must be one of the model's; names in error messages are the checkpoint's.
  static Result<ClipTextModel> load(device::Device& device, weights::CheckpointPart part, DType activation_dtype,
                                    layers::Residency residency = layers::Residency::kDevice);

  /// ids [B, T] i32 on the device (T = positions), `eos_rows` the row of each sequence's end token.
  /// hidden [B, T, width] f32 (outer strides allowed): hidden_states[-clip_layer], no final norm; clip_layer from 2
  /// (what SD3.5 reads) to the number of layers.
  /// pooled [B, projection] f32 (row stride allowed): final norm at the end token, projected.
  void encode(ops::ExecutionContext& context, const TensorView& ids, const std::vector<int>& eos_rows,
              const TensorView& hidden, const TensorView& pooled, int clip_layer = 2) const;

  /// Where the pooled row is: the first end token, or the largest id under the legacy rule (same row for CLIP).
  int eos_row(const std::vector<std::int32_t>& ids) const;

  const ClipConfig& config() const { return config_; }

 private:
  struct Layer {
    layers::OwnedTensor norm1_weight, norm1_bias, norm2_weight, norm2_bias;
    layers::Linear qkv, out, fc1, fc2;
  };
  ClipConfig config_;
  std::string label_;
  DType dtype_ = DType::kF32;
  layers::OwnedTensor token_table_, position_table_;
  std::shared_ptr<layers::WeightStreamer> streamer_;  // of products, if they do not stay on the device
  std::vector<Layer> layers_;
  layers::OwnedTensor final_weight_, final_bias_;
  layers::Linear projection_;
  std::shared_ptr<weights::WeightStore> weights_;  // keeps the mapped tables alive
};

}  // namespace octavo::models
