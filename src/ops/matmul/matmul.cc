#include "ops/matmul/matmul.h"

#include "ops/matmul/matmul_kernels.h"
#include "ops/require.h"
#include "ops/rows.h"

namespace octavo::ops {

void* matmul_row(const TensorView& view, std::int64_t row) {
  return view.rank() == 3 ? Row::address(view, {row / view.dim(1), row % view.dim(1)}) : Row::address(view, {row});
}

std::int64_t matmul_rows(const TensorView& view) { return view.element_count() / view.dim(-1); }

const float* matmul_gate_row(const Epilogue& epilogue, std::int64_t row, std::int64_t rows) {
  if (!epilogue.gate.defined()) return nullptr;
  return static_cast<const float*>(Row::address(epilogue.gate, {row / (rows / epilogue.gate.dim(0))}));
}

void require_epilogue(std::string_view op, const Epilogue& epilogue, const TensorView& x, const TensorView& out,
                      std::int64_t width) {
  const Shape out_shape = x.rank() == 3 ? Shape{x.dim(0), x.dim(1), width} : Shape{x.dim(0), width};
  require_shape(op, "out", out, out_shape);
  if (epilogue.bias.defined()) {
    require_shape(op, "bias", epilogue.bias, Shape{width});
    require_dtype(op, "bias", epilogue.bias, {DType::kF32, DType::kBF16});
    require_contiguous(op, "bias", epilogue.bias);
  }
  if (epilogue.residual.defined()) {
    require_shape(op, "residual", epilogue.residual, out_shape);
    require_dtype(op, "residual", epilogue.residual, {out.dtype()});
  }
  if (epilogue.gate.defined()) {
    require_rank(op, "gate", epilogue.gate, 2);
    require_dtype(op, "gate", epilogue.gate, {DType::kF32});
    const std::int64_t groups = epilogue.gate.dim(0);
    OCTAVO_CHECK(epilogue.gate.dim(1) == width && groups > 0 && matmul_rows(out) % groups == 0 &&
                     (x.rank() == 2 || groups == x.dim(0)),
                 "op {}: gate is {} for out {}", op, epilogue.gate.shape().to_string(), out_shape.to_string());
  }
}

bool has_plain_epilogue(const Epilogue& epilogue) {
  return (!epilogue.bias.defined() || epilogue.bias.dtype() == DType::kF32) &&
         (!epilogue.residual.defined() || epilogue.residual.dtype() == DType::kF32);
}

namespace {

MatmulPacker& other_packer() {
  static MatmulPacker packer = nullptr;
  return packer;
}

}  // namespace

void set_matmul_packer(MatmulPacker packer) { other_packer() = packer; }

KernelTable<MatmulArgs>& matmul_table() {
  static KernelTable<MatmulArgs> table("matmul", {{.name = "onednn_packed",
                                                   .supports = matmul_onednn_supports,
                                                   .scratch_bytes = matmul_onednn_scratch_bytes,
                                                   .run = matmul_onednn},
                                                  {.name = "panels",
                                                   .supports = matmul_panels_supports,
                                                   .scratch_bytes = matmul_panels_scratch_bytes,
                                                   .run = matmul_panels},
                                                  {.name = "reference", .run = matmul_reference}});
  return table;
}

void matmul(ExecutionContext& context, const MatmulArgs& args) {
  constexpr std::string_view op = "matmul";
  const TensorView& weight = args.weight.plain;
  OCTAVO_CHECK(args.x.rank() == 2 || args.x.rank() == 3, "op matmul: x is {}, expected rank 2 or 3",
               args.x.shape().to_string());
  require_dtype(op, "x", args.x, {DType::kF32, DType::kBF16});
  require_rank(op, "weight", weight, 2);
  require_dtype(op, "weight", weight, {DType::kF32, DType::kF16, DType::kBF16});
  require_contiguous(op, "weight", weight);
  OCTAVO_CHECK(args.x.dim(-1) == weight.dim(1) && weight.dim(1) > 0, "op matmul: x is {}, weight is {}",
               args.x.shape().to_string(), weight.shape().to_string());
  require_dtype(op, "out", args.out, {DType::kF32, DType::kBF16});
  require_epilogue(op, args.epilogue, args.x, args.out, weight.dim(0));
  if (args.out.element_count() == 0) return;
  matmul_table().dispatch(context, args);
}

Result<MatmulWeight> pack_matmul_weight(device::Device& device, const TensorView& plain, DType activation_dtype) {
  MatmulWeight weight{.plain = plain, .packed = nullptr, .packed_for = activation_dtype};
  if (device.traits().kind != DeviceKind::kCpu) {
    OCTAVO_CHECK(other_packer() != nullptr, "op matmul: no packer for {}", device.traits().name);
    return other_packer()(device, plain, activation_dtype);
  }
  OCTAVO_ASSIGN_OR_RETURN(weight.packed, pack_onednn_weight(device, plain, activation_dtype));
  if (weight.packed == nullptr && activation_dtype == DType::kF32 && device.traits().has_avx2) {
    OCTAVO_ASSIGN_OR_RETURN(weight.packed, pack_panels_weight(device, plain));
  }
  return weight;
}

}  // namespace octavo::ops
