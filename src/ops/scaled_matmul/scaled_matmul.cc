#include "ops/scaled_matmul/scaled_matmul.h"

#include "ops/matmul/matmul_kernels.h"
#include "ops/require.h"
#include "ops/scaled_matmul/scaled_matmul_kernels.h"

namespace octavo::ops {

namespace {

ScaledMatmulPacker& other_packer() {
  static ScaledMatmulPacker packer = nullptr;
  return packer;
}

}  // namespace

void set_scaled_matmul_packer(ScaledMatmulPacker packer) { other_packer() = packer; }

KernelTable<ScaledMatmulArgs>& scaled_matmul_table() {
  static KernelTable<ScaledMatmulArgs> table("scaled_matmul", {{.name = "decoded",
                                                                .supports = scaled_matmul_decoded_supports,
                                                                .scratch_bytes = scaled_matmul_decoded_scratch_bytes,
                                                                .run = scaled_matmul_decoded},
                                                               {.name = "reference", .run = scaled_matmul_reference}});
  return table;
}

void scaled_matmul(ExecutionContext& context, const ScaledMatmulArgs& args) {
  constexpr std::string_view op = "scaled_matmul";
  const TensorView& x = args.x.codes;
  const QuantizedView& weight = args.weight.quantized;
  OCTAVO_CHECK(x.rank() == 2 || x.rank() == 3, "op scaled_matmul: x is {}, expected rank 2 or 3",
               x.shape().to_string());
  require_rank(op, "weight", weight.codes, 2);
  require_dtype(op, "weight", weight.codes, {DType::kE4M3, DType::kE5M2, DType::kI8});
  require_contiguous(op, "weight", weight.codes);
  require_dtype(op, "weight's scale", weight.dequant_scale, {DType::kF32});
  require_shape(op, "weight's scale", weight.dequant_scale, scale_shape(weight.grain, weight.rows(), weight.inner()));
  require_contiguous(op, "weight's scale", weight.dequant_scale);
  OCTAVO_CHECK(x.dim(-1) == weight.inner() && weight.inner() > 0, "op scaled_matmul: x is {}, weight is {}",
               x.shape().to_string(), weight.codes.shape().to_string());
  if (is_quantized(x.dtype())) {
    require_contiguous(op, "x", x);
    require_dtype(op, "x's scale", args.x.dequant_scale, {DType::kF32});
    require_shape(op, "x's scale", args.x.dequant_scale, scale_shape(args.x.grain, args.x.rows(), args.x.inner()));
    require_contiguous(op, "x's scale", args.x.dequant_scale);
  } else {
    require_dtype(op, "x", x, {DType::kF32, DType::kBF16});
    OCTAVO_CHECK(!args.x.dequant_scale.defined(), "op scaled_matmul: x is {} and has a scale", dtype_name(x.dtype()));
  }
  const TensorView& outlier_weight = args.weight.outlier_weight;
  OCTAVO_CHECK(args.outliers.defined() == outlier_weight.defined(),
               "op scaled_matmul: outliers and outlier_weight come together");
  if (outlier_weight.defined()) {
    require_rank(op, "outlier_weight", outlier_weight, 2);
    const std::int64_t count = outlier_weight.dim(1);
    require_shape(op, "outlier_weight", outlier_weight, Shape{weight.rows(), count});
    require_dtype(op, "outlier_weight", outlier_weight, {DType::kBF16});
    require_contiguous(op, "outlier_weight", outlier_weight);
    require_shape(op, "outliers", args.outliers,
                  x.rank() == 3 ? Shape{x.dim(0), x.dim(1), count} : Shape{x.dim(0), count});
    require_dtype(op, "outliers", args.outliers, {DType::kBF16});
    require_contiguous(op, "outliers", args.outliers);
  }
  require_dtype(op, "out", args.out, {DType::kF32, DType::kBF16, DType::kE4M3});
  require_quant_scale(op, args.out, args.out_quant_scale);
  OCTAVO_CHECK(!args.out_quant_scale.defined() || !args.epilogue.residual.defined(),
               "op scaled_matmul: codes have no residual");
  require_epilogue(op, args.epilogue, x, args.out, weight.rows());
  if (args.out.element_count() == 0) return;
  scaled_matmul_table().dispatch(context, args);
}

Result<ScaledWeight> pack_scaled_weight(device::Device& device, const QuantizedView& quantized,
                                        const TensorView& outlier_weight, const ScaledActivations& activations) {
  ScaledWeight weight{.quantized = quantized,
                      .one_scale = quantized.grain == ScaleGrain::kTensor,
                      .outlier_weight = outlier_weight,
                      .packed = nullptr};
  if (device.traits().kind != DeviceKind::kCpu) {
    OCTAVO_CHECK(other_packer() != nullptr, "op scaled_matmul: no packer for {}", device.traits().name);
    return other_packer()(device, quantized, outlier_weight, activations);
  }
  OCTAVO_ASSIGN_OR_RETURN(weight.packed, pack_decoded_weight(device, quantized, outlier_weight, activations));
  return weight;
}

}  // namespace octavo::ops
