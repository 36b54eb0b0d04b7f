// The product as its definition says, one output at a time, summed in double.
#include <algorithm>

#include "ops/activation/activation_kernels.h"
#include "ops/matmul/matmul_kernels.h"
#include "ops/rows.h"
#include "ops/scaled_matmul/scaled_matmul_kernels.h"

namespace octavo::ops {
namespace {

Row row_of(const TensorView& view, std::int64_t row) {
  return view.rank() == 3 ? Row(view, {row / view.dim(1), row % view.dim(1)}) : Row(view, {row});
}

/// The scale of a row in the block that holds element k; 1 for plain activations.
double scale_at(const QuantizedView& view, std::int64_t row, std::int64_t k) {
  if (!view.dequant_scale.defined()) return 1.0;
  const float* scales = view.dequant_scale.f32();
  switch (view.grain) {
    case ScaleGrain::kTensor:
      return scales[0];
    case ScaleGrain::kRow:
      return scales[row];
    case ScaleGrain::kBlock128:
      return scales[row * view.dequant_scale.dim(1) + k / kScaleBlock];
  }
  return 1.0;
}

}  // namespace

void scaled_matmul_reference(ExecutionContext&, const ScaledMatmulArgs& args, void*) {
  const std::int64_t rows = matmul_rows(args.out);
  const std::int64_t inner = args.x.inner();
  const float quant_scale = args.out_quant_scale.defined() ? *args.out_quant_scale.f32() : 1.0f;
  for (std::int64_t m = 0; m < rows; ++m) {
    const Row x = row_of(args.x.codes, m);
    const Row out = row_of(args.out, m);
    const float* gate = matmul_gate_row(args.epilogue, m, rows);
    for (std::int64_t n = 0; n < args.out.dim(-1); ++n) {
      const Row weight(args.weight.quantized.codes, {n});
      double value = args.epilogue.bias.defined() ? Row(args.epilogue.bias, {})[n] : 0.0;
      for (std::int64_t begin = 0; begin < inner; begin += kScaleBlock) {
        double sum = 0;
        for (std::int64_t k = begin; k < std::min(inner, begin + kScaleBlock); ++k) {
          sum += static_cast<double>(x[k]) * weight[k];
        }
        value += sum * scale_at(args.x, m, begin) * scale_at(args.weight.quantized, n, begin);
      }
      if (args.outliers.defined()) {
        const Row outliers = row_of(args.outliers, m);
        const Row outlier_weight(args.weight.outlier_weight, {n});
        for (std::int64_t k = 0; k < args.outliers.dim(-1); ++k) {
          value += static_cast<double>(outliers[k]) * outlier_weight[k];
        }
      }
      value = activate_reference(args.epilogue.activation, value);
      if (gate != nullptr) value *= gate[n];
      if (args.epilogue.residual.defined()) value += row_of(args.epilogue.residual, m)[n];
      out.set(n, static_cast<float>(value) * quant_scale);
    }
  }
}

}  // namespace octavo::ops
