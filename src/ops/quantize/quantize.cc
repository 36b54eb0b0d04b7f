#include "ops/quantize/quantize.h"

#include "ops/parallel_rows.h"
#include "ops/quantize/quantize_kernels.h"
#include "ops/require.h"
#include "ops/vector_row.h"

namespace octavo::ops {
namespace {

void quantize_vector(ExecutionContext& context, const QuantizeArgs& args, void*) {
  run_rows(context, args, args.out.rows(), args.out.inner(), quantize_rows_of);
}

}  // namespace

KernelTable<QuantizeArgs>& quantize_table() {
  static KernelTable<QuantizeArgs> table("quantize",
                                         {{.name = "vector", .supports = has_vectors, .run = quantize_vector},
                                          {.name = "reference", .run = quantize_reference}});
  return table;
}

void quantize(ExecutionContext& context, const QuantizeArgs& args) {
  constexpr std::string_view op = "quantize";
  const TensorView& x = args.x;
  OCTAVO_CHECK(x.rank() == 2 || x.rank() == 3, "op quantize: x is {}, expected rank 2 or 3", x.shape().to_string());
  require_dtype(op, "x", x, {DType::kF32, DType::kBF16, DType::kF16});
  require_shape(op, "out.codes", args.out.codes, x.shape());
  require_dtype(op, "out.codes", args.out.codes, {DType::kE4M3, DType::kE5M2, DType::kI8});
  require_contiguous(op, "out.codes", args.out.codes);
  require_dtype(op, "out.dequant_scale", args.out.dequant_scale, {DType::kF32});
  require_shape(op, "out.dequant_scale", args.out.dequant_scale,
                scale_shape(args.out.grain, args.out.rows(), args.out.inner()));
  require_contiguous(op, "out.dequant_scale", args.out.dequant_scale);
  if (args.multiplier.defined()) {
    require_shape(op, "multiplier", args.multiplier, Shape{x.dim(-1)});
    require_dtype(op, "multiplier", args.multiplier, {DType::kF32});
  }
  OCTAVO_CHECK(args.outliers.defined() == args.outlier_values.defined(),
               "op quantize: outliers and outlier_values come together");
  if (args.outliers.defined()) {
    require_rank(op, "outliers", args.outliers, 1);
    require_dtype(op, "outliers", args.outliers, {DType::kI32});
    const std::int64_t count = args.outliers.dim(0);
    require_shape(op, "outlier_values", args.outlier_values,
                  x.rank() == 3 ? Shape{x.dim(0), x.dim(1), count} : Shape{x.dim(0), count});
    require_dtype(op, "outlier_values", args.outlier_values, {DType::kBF16});
    require_contiguous(op, "outlier_values", args.outlier_values);
  }
  if (x.element_count() == 0) return;
  quantize_table().dispatch(context, args);
}

}  // namespace octavo::ops
