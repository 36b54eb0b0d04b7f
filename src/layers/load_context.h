// LoadContext: what a layer needs while it is built from a checkpoint.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "device/device.h"
#include "weights/weight_store.h"

namespace octavo::layers {

class WeightStreamer;

/// What becomes of the weights of products.
enum class WeightPrecision {
  kAsStored,  // 16 or 32 bits as they are; the codes of a quantised part are used as it says
  kWidened,   // 16 or 32 bits; codes of a quantised part are widened to bf16
  /// 8 bits: a quantised part as it says; in another, the layers that the model allows are quantised at load (AtLoad).
  kQuantized,
  kWeightsQuantized,  // the same for weights alone: inputs are not quantised, whatever a quantised part says
};

/// What a model allows its layers to become at load, when 8 bits are asked for and the part is not a quantised one; as
/// the default policy of `octavo quantize` has it.
enum class AtLoad {
  kNothing,
  kProduct,  // E4M3, one scale a channel; inputs E4M3, one scale a token
  kStorage,  // int8, one scale a channel; inputs stay as they are
  kWeights,  // E4M3, one scale a channel; inputs stay as they are
};

/// The number under which a streamer keeps a weight.
struct StreamedWeight {
  WeightStreamer* streamer = nullptr;  // null: the weight stays on the device
  int number = 0;
};

/// Where the weights of products are between their uses, on a GPU.
enum class Residency {
  kDevice,  // in its memory
  /// In pinned host memory: each is copied to the device for every product, while the one before it is multiplied.
  kStreamed,
};

/// How a model computes.
struct Precision {
  // NOLINTNEXTLINE: implicit by design, a type alone is arithmetic on weights as they are stored
  Precision(DType activations_dtype, WeightPrecision weight_precision = WeightPrecision::kAsStored)
      : activations(activations_dtype), weights(weight_precision) {}
  DType activations;  // f32 | bf16: what products are fed with, unless a product in 8 bits rounds it further
  WeightPrecision weights;
  /// f32 | bf16: the residual streams of the transformer. Below f32 only where the device prefers it and activations
  /// are bf16 (device::DeviceTraits::preferred_residual_dtype).
  DType residuals = DType::kF32;
  /// kQuantized and kWeightsQuantized: T5's weights too, as AtLoad::kWeights. Else it keeps what its file has.
  bool quantize_t5 = false;
  /// q and k of the transformer's attention in E4M3, where the device can (ops::plan_attention_operands).
  bool attention_codes = false;
  /// Of AtLoad::kProduct: the magnitude that becomes the largest code of every input, with which each weight has one
  /// scale, too; as a calibrated checkpoint of tensor grain, without its calibration: for random weights, none of whose
  /// rows is zero. 0 = scales a token and a channel.
  float static_amax = 0.0f;
};

/// Which forms a model's products have, for the log. Joined layers count as the layers they are joined from.
struct WeightForms {
  int plain = 0;
  int w8a8 = 0;
  int w8a16 = 0;
  int static_inputs = 0;      // of w8a8
  int quantized_at_load = 0;  // of the last two
  std::chrono::nanoseconds quantizing{0};

  WeightForms& operator+=(const WeightForms& other);
};

/// Layers take their tensors from `weights` and never fail one by one: a missing or wrong tensor leaves the layer
/// empty and is listed by WeightStore::finish(); `status` keeps the first failure of another kind (memory). A model
/// is usable only when both are ok. The views point into the store's files: the model keeps the store alive.
struct LoadContext {
  device::Device& device;
  weights::WeightStore& weights;
  Precision precision = DType::kF32;
  std::string tap_label = {};          // what names of taps begin with ("transformer"); empty = Linears tap nothing
  AtLoad at_load = AtLoad::kNothing;   // of the layers that follow
  WeightStreamer* streamer = nullptr;  // takes the weights of the layers that follow; null = they stay on the device
  Status status = {};
  WeightForms forms = {};

  void note(const Status& failure) {
    if (status.ok()) status = failure;
  }
};

/// A small tensor owned by a layer.
struct OwnedTensor {
  device::Buffer buffer;
  TensorView view;  // undefined when there is none
};

/// An f32 copy on the device (norm weights): what kernels read without conversion.
OwnedTensor load_f32(LoadContext& load, const std::string& name, const Shape& shape);

/// What a product adds: f32, but bf16 on a GPU that feeds its products with bf16, whose libraries add nothing else.
OwnedTensor load_bias(LoadContext& load, const std::string& name, const Shape& shape);

/// From here on, weights of products are kept as `residency` says. Returns load.streamer, which the model keeps as long
/// as its layers and finishes after the last of them; null when the weights stay on the device.
std::shared_ptr<WeightStreamer> place_weights(LoadContext& load, Residency residency);

/// Moves a weight on the device to load.streamer, which is there; notes a failure.
StreamedWeight stream_weight(LoadContext& load, const TensorView& weight);

/// A table that is looked up (embeddings, positions), in the file's dtype: the file itself on the CPU, a copy on a GPU,
/// or in pinned host memory, which a GPU reads row by row, where weights are streamed.
OwnedTensor load_table(LoadContext& load, const std::string& name, const Shape& shape);

/// A copy on the device of contiguous host memory; empty, and noted, when there is no room.
OwnedTensor copy_to_device(LoadContext& load, const TensorView& host);

}  // namespace octavo::layers
