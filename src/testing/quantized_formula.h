// A quantised product as the formula says it, in double: what an engine's product is compared with.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "tensor/quantized.h"

namespace octavo::testing {

/// Everything that a quantised layer has beside its input. Codes of the input come from tensor/quantized.h, whose
/// rounding has tests of its own.
struct QuantizedFormula {
  QuantizedView weight;               // [N, K]
  std::optional<DType> input_format;  // nothing: the input stays as it is
  ScaleGrain input_grain = ScaleGrain::kRow;
  std::optional<float> static_scale;   // with kTensor
  std::vector<float> multiplier;       // [K] or empty
  std::vector<std::int32_t> outliers;  // ascending columns
  TensorView outlier_weight;           // [N, k] bf16

  /// x [M, K] f32 | bf16 | f16, contiguous; the result has M * N elements, without bias.
  std::vector<double> product(const TensorView& x) const;
};

}  // namespace octavo::testing
