// The product as its definition says, one output at a time, summed in double.
#include "ops/activation/activation_kernels.h"
#include "ops/matmul/matmul_kernels.h"
#include "ops/rows.h"

namespace octavo::ops {
namespace {

Row row_of(const TensorView& view, std::int64_t row) {
  return view.rank() == 3 ? Row(view, {row / view.dim(1), row % view.dim(1)}) : Row(view, {row});
}

}  // namespace

void matmul_reference(ExecutionContext&, const MatmulArgs& args, void*) {
  const bool rounds_weight = args.x.dtype() == DType::kBF16;
  const std::int64_t rows = matmul_rows(args.x);
  const std::int64_t inner = args.x.dim(-1);
  for (std::int64_t m = 0; m < rows; ++m) {
    const Row x = row_of(args.x, m);
    const Row out = row_of(args.out, m);
    const float* gate = matmul_gate_row(args.epilogue, m, rows);
    for (std::int64_t n = 0; n < args.out.dim(-1); ++n) {
      const Row weight(args.weight.plain, {n});
      double sum = args.epilogue.bias.defined() ? Row(args.epilogue.bias, {})[n] : 0.0;
      for (std::int64_t k = 0; k < inner; ++k) {
        const float w = rounds_weight ? to_float(to_bfloat16(weight[k])) : weight[k];
        sum += static_cast<double>(x[k]) * w;
      }
      double value = activate_reference(args.epilogue.activation, sum);
      if (gate != nullptr) value *= gate[n];
      if (args.epilogue.residual.defined()) value += row_of(args.epilogue.residual, m)[n];
      out.set(n, static_cast<float>(value));
    }
  }
}

}  // namespace octavo::ops
