#include "testing/quantized_formula.h"

#include "base/check.h"
#include "tensor/convert.h"

namespace octavo::testing {
namespace {

/// code * scale for every element, in double.
std::vector<double> values_of(const QuantizedView& view) {
  std::vector<float> codes(static_cast<std::size_t>(view.codes.element_count()));
  decode_codes(static_cast<const std::byte*>(view.codes.data()), view.codes.dtype(), codes.data(),
               view.codes.element_count());
  const std::int64_t inner = view.inner();
  const std::int64_t blocks = (inner + kScaleBlock - 1) / kScaleBlock;
  std::vector<double> values(codes.size());
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(codes.size()); ++i) {
    const std::int64_t row = i / inner;
    const std::int64_t scale = view.grain == ScaleGrain::kTensor ? 0
                               : view.grain == ScaleGrain::kRow  ? row
                                                                 : row * blocks + i % inner / kScaleBlock;
    values[static_cast<std::size_t>(i)] =
        static_cast<double>(codes[static_cast<std::size_t>(i)]) * view.dequant_scale.f32()[scale];
  }
  return values;
}

}  // namespace

std::vector<double> QuantizedFormula::product(const TensorView& x) const {
  OCTAVO_CHECK(x.rank() == 2 && x.contiguous() && x.dim(1) == weight.inner(), "x is {}", x.shape().to_string());
  const std::int64_t rows = x.dim(0);
  const std::int64_t inner = x.dim(1);
  const auto elements = static_cast<std::size_t>(rows * inner);
  std::vector<float> v(elements);
  convert_elements(static_cast<const std::byte*>(x.data()), x.dtype(), reinterpret_cast<std::byte*>(v.data()),
                   DType::kF32, rows * inner);
  const std::size_t apart = outliers.size();
  std::vector<double> kept(static_cast<std::size_t>(rows) * apart);
  for (std::int64_t row = 0; row < rows; ++row) {
    float* values = v.data() + row * inner;
    for (std::size_t k = 0; k < multiplier.size(); ++k) values[k] *= multiplier[k];
    for (std::size_t i = 0; i < apart; ++i) {
      float& value = values[outliers[i]];
      kept[static_cast<std::size_t>(row) * apart + i] = to_float(to_bfloat16(value));
      value = 0.0f;
    }
  }
  std::vector<double> factors(v.begin(), v.end());
  if (input_format) {
    std::vector<std::byte> codes(elements);
    const Shape scales = scale_shape(input_grain, rows, inner);
    std::vector<float> scale(static_cast<std::size_t>(scales.element_count()), static_scale.value_or(1.0f));
    const QuantizedView quantized{TensorView(codes.data(), *input_format, Shape{rows, inner}),
                                  TensorView(scale.data(), DType::kF32, scales), input_grain};
    const TensorView source(v.data(), DType::kF32, Shape{rows, inner});
    if (static_scale) {
      encode_rows(source, quantized);
    } else {
      quantize_rows(source, quantized);
    }
    factors = values_of(quantized);
  }
  const std::vector<double> weights = values_of(weight);
  const std::int64_t width = weight.rows();
  std::vector<double> result(static_cast<std::size_t>(rows * width));
  for (std::int64_t m = 0; m < rows; ++m) {
    for (std::int64_t n = 0; n < width; ++n) {
      double sum = 0;
      for (std::int64_t k = 0; k < inner; ++k) {
        sum += factors[static_cast<std::size_t>(m * inner + k)] * weights[static_cast<std::size_t>(n * inner + k)];
      }
      for (std::size_t i = 0; i < apart; ++i) {
        const auto at = static_cast<std::size_t>(n) * apart + i;
        sum += kept[static_cast<std::size_t>(m) * apart + i] * to_float(outlier_weight.as<BFloat16>()[at]);
      }
      result[static_cast<std::size_t>(m * width + n)] = sum;
    }
  }
  return result;
}

}  // namespace octavo::testing
