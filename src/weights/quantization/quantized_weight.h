// A weight in 8 bits as a quantised part holds it (quantization/provenance.h).
#pragma once

#include "tensor/quantized.h"
#include "weights/quantization/provenance.h"

namespace octavo::weights {

/// Views of a mapped file or of memory that the store owns; undefined where the file has nothing.
struct QuantizedWeight {
  QuantizedView weight;  // [N, K]
  ActivationForm activations = ActivationForm::kToken;
  DType activation_format = DType::kE4M3;  // without meaning for kNone
  TensorView input_scale;                  // [1] f32, with kStatic
  TensorView input_multiplier;             // [K] f32
  TensorView outlier_index;                // [k] i32, ascending
  TensorView outlier_weight;               // [N, k] bf16
};

/// The one weight [N, K], bf16, contiguous, that stands for all of it: code * scale, or the outlier's column, times the
/// multiplier, in f32 and rounded once.
void widen(const QuantizedWeight& quantized, const TensorView& out);

}  // namespace octavo::weights
