// The inputs of octavo-tiny's products as FP8: D = 192, 256 image tokens, two rows; a scale a token, and one for all.
// On a GPU those of Large.
#include <array>

#include "ops/op_cases.h"
#include "ops/quantize/quantize.h"

namespace octavo::ops {

CaseList quantize_cases(device::Device& device) {
  std::vector<OpCase> cases;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const ScaleGrain grain : {ScaleGrain::kRow, ScaleGrain::kBlock128, ScaleGrain::kTensor}) {
      const bool full = full_size(device.traits());
      for (const std::int64_t inner :
           full ? std::array<std::int64_t, 2>{2432, 9728} : std::array<std::int64_t, 2>{192, 768}) {
        const auto tensors = std::make_shared<CaseTensors>(device);
        const std::int64_t rows = full ? 8192 : 512;
        const Shape shape{rows, inner};
        const TensorView scale = tensors->constant(DType::kF32, scale_shape(grain, rows, inner), 0.01f);
        const QuantizeArgs args{.x = tensors->random(dtype, shape),
                                .multiplier = {},
                                .outliers = {},
                                .out = {tensors->zeros(DType::kE4M3, shape), scale, grain},
                                .outlier_values = {}};
        const auto elements = static_cast<double>(shape.element_count());
        cases.push_back(
            make_case(quantize_table(), quantize, device.traits(), tensors, args,
                      fmt::format("{}x{} {} to e4m3, {}", rows, inner, dtype_name(dtype), scale_grain_name(grain)), 0,
                      elements * static_cast<double>(dtype_size(dtype) + 1)));
      }
    }
  }
  return cases;
}

}  // namespace octavo::ops
