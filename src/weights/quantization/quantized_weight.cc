#include "weights/quantization/quantized_weight.h"

#include <vector>

#include "base/check.h"

namespace octavo::weights {

void widen(const QuantizedWeight& quantized, const TensorView& out) {
  const QuantizedView& weight = quantized.weight;
  OCTAVO_CHECK(out.dtype() == DType::kBF16 && out.shape() == weight.codes.shape() && out.contiguous(),
               "widened to {} {}", dtype_name(out.dtype()), out.shape().to_string());
  const std::int64_t inner = weight.inner();
  std::vector<float> values(static_cast<std::size_t>(inner));
  auto* to = out.as<BFloat16>();
  for (std::int64_t row = 0; row < weight.rows(); ++row, to += inner) {
    QuantizedView one = weight;
    one.codes = weight.codes.slice(0, row, 1);
    if (weight.grain != ScaleGrain::kTensor) one.dequant_scale = weight.dequant_scale.slice(0, row, 1);
    dequantize_rows(one, TensorView(values.data(), DType::kF32, Shape{1, inner}));
    if (quantized.outlier_index.defined()) {
      const std::int64_t count = quantized.outlier_index.dim(0);
      const auto* columns = quantized.outlier_index.as<std::int32_t>();
      const auto* kept = quantized.outlier_weight.as<BFloat16>() + row * count;
      for (std::int64_t i = 0; i < count; ++i) values[static_cast<std::size_t>(columns[i])] = to_float(kept[i]);
    }
    const float* multiplier = quantized.input_multiplier.defined() ? quantized.input_multiplier.f32() : nullptr;
    for (std::int64_t k = 0; k < inner; ++k) {
      const float value = values[static_cast<std::size_t>(k)];
      to[k] = to_bfloat16(multiplier == nullptr ? value : value * multiplier[k]);
    }
  }
}

}  // namespace octavo::weights
