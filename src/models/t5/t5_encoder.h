// The T5 v1.1 encoder (transformers T5EncoderModel): gated tanh-GELU, RMS norms, relative position bias, no mask.
#pragma once

#include <string>
#include <vector>

#include "layers/linear.h"
#include "weights/checkpoint.h"

namespace octavo::models {

struct T5Config {
  int layers = 0;
  std::int64_t width = 0;
  int heads = 0;
  std::int64_t head_width = 64;
  std::int64_t feed_forward = 0;
  std::int64_t vocabulary = 0;
  std::int64_t buckets = 32;
  float eps = 1e-6f;

  static Result<T5Config> from_json(const boost::json::object& config, const std::string& file);
};

class T5Encoder {
 public:
  static Result<T5Encoder> load(device::Device& device, weights::CheckpointPart part, layers::Precision precision,
                                layers::Residency residency = layers::Residency::kDevice);

  /// ids [B, T] i32 on the device, padded with 0 (pads are attended, as in the reference).
  /// hidden [B, T, width] f32, outer strides allowed: the normed last state.
  void encode(ops::ExecutionContext& context, const TensorView& ids, const TensorView& hidden) const;

  const T5Config& config() const { return config_; }
  const layers::WeightForms& forms() const { return forms_; }

 private:
  struct Block {
    layers::OwnedTensor norm1, norm2;
    layers::Linear qkv, out, gate, up, down;
  };
  T5Config config_;
  std::string label_;
  DType dtype_ = DType::kF32;
  layers::WeightForms forms_;
  layers::OwnedTensor table_, bias_table_;
  std::shared_ptr<layers::WeightStreamer> streamer_;  // of products, if they do not stay on the device
  std::vector<Block> blocks_;
  layers::OwnedTensor final_norm_;
  std::shared_ptr<weights::WeightStore> weights_;
};

}  // namespace octavo::models
