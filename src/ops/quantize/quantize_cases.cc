// The inputs of octavo-tiny's products as FP8: D = 192, 256 image tokens, two rows; a scale a token, and one for all.
#include "ops/op_cases.h"
#include "ops/quantize/quantize.h"

namespace octavo::ops {

CaseList quantize_cases(device::Device& device) {
  std::vector<OpCase> cases;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const ScaleGrain grain : {ScaleGrain::kRow, ScaleGrain::kBlock128, ScaleGrain::kTensor}) {
      for (const std::int64_t inner : {192, 768}) {
        const auto tensors = std::make_shared<CaseTensors>(device);
        constexpr std::int64_t kRows = 512;
        const Shape shape{kRows, inner};
        const TensorView scale = tensors->zeros(DType::kF32, scale_shape(grain, kRows, inner));
        if (grain == ScaleGrain::kTensor) scale.f32()[0] = 0.01f;
        const QuantizeArgs args{.x = tensors->random(dtype, shape),
                                .multiplier = {},
                                .outliers = {},
                                .out = {tensors->zeros(DType::kE4M3, shape), scale, grain},
                                .outlier_values = {}};
        const auto elements = static_cast<double>(shape.element_count());
        cases.push_back(
            make_case(quantize_table(), quantize, device.traits(), tensors, args,
                      fmt::format("{}x{} {} to e4m3, {}", kRows, inner, dtype_name(dtype), scale_grain_name(grain)), 0,
                      elements * static_cast<double>(dtype_size(dtype) + 1)));
      }
    }
  }
  return cases;
}

}  // namespace octavo::ops
