// As the header says it, a row at a time through the one formula of tensor/quantized.h.
#include <vector>

#include "ops/quantize/quantize_kernels.h"
#include "ops/rows.h"

namespace octavo::ops {

void quantize_reference(ExecutionContext&, const QuantizeArgs& args, void*) {
  const std::int64_t inner = args.out.inner();
  std::vector<float> values(static_cast<std::size_t>(inner));
  for (std::int64_t row = 0; row < args.out.rows(); ++row) {
    const Row x = args.x.rank() == 3 ? Row(args.x, {row / args.x.dim(1), row % args.x.dim(1)}) : Row(args.x, {row});
    for (std::int64_t k = 0; k < inner; ++k) {
      values[static_cast<std::size_t>(k)] = args.multiplier.defined() ? x[k] * args.multiplier.f32()[k] : x[k];
    }
    if (args.outliers.defined()) {
      const std::int64_t count = args.outliers.dim(0);
      for (std::int64_t i = 0; i < count; ++i) {
        float& value = values[static_cast<std::size_t>(args.outliers.as<std::int32_t>()[i])];
        args.outlier_values.as<BFloat16>()[row * count + i] = to_bfloat16(value);
        value = 0.0f;
      }
    }
    QuantizedView out = args.out;
    out.codes = TensorView(static_cast<std::byte*>(args.out.codes.data()) + row * inner, args.out.codes.dtype(),
                           Shape{1, inner});
    const TensorView source(values.data(), DType::kF32, Shape{1, inner});
    if (args.out.grain == ScaleGrain::kTensor) {
      encode_rows(source, out);
    } else {
      out.dequant_scale = args.out.dequant_scale.slice(0, row, 1);
      quantize_rows(source, out);
    }
  }
}

}  // namespace octavo::ops
