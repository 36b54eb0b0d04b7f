// LoadContext: what a layer needs while it is built from a checkpoint.
#pragma once

#include <string>

#include "device/device.h"
#include "weights/weight_store.h"

namespace octavo::layers {

/// Layers take their tensors from `weights` and never fail one by one: a missing or wrong tensor leaves the layer
/// empty and is listed by WeightStore::finish(); `status` keeps the first failure of another kind (memory). A model
/// is usable only when both are ok. The views point into the store's files: the model keeps the store alive.
struct LoadContext {
  device::Device& device;
  weights::WeightStore& weights;
  DType activation_dtype = DType::kF32;  // what products are fed with: f32 | bf16
  std::string tap_label = {};            // what names of taps begin with ("transformer"); empty = Linears tap nothing
  Status status = {};

  void note(const Status& failure) {
    if (status.ok()) status = failure;
  }
};

/// A small tensor owned by a layer.
struct OwnedTensor {
  device::Buffer buffer;
  TensorView view;  // undefined when there is none
};

/// An f32 copy on the device (biases, norm weights): what kernels read without conversion.
OwnedTensor load_f32(LoadContext& load, const std::string& name, const Shape& shape);

}  // namespace octavo::layers
