#include "ops/norm/norm.h"

#include "ops/norm/norm_kernels.h"
#include "ops/parallel_rows.h"
#include "ops/require.h"
#include "ops/vector_row.h"
#include "tensor/quantized.h"

namespace octavo::ops {
namespace {

constexpr auto kF32 = DType::kF32;
constexpr auto kBF16 = DType::kBF16;

/// [B, D] f32: a slice of the modulation table.
void require_modulation(std::string_view op, std::string_view argument, const TensorView& view, const TensorView& x) {
  require_shape(op, argument, view, Shape{x.dim(0), x.dim(2)});
  require_dtype(op, argument, view, {kF32});
}

/// An output of a norm, and where it holds codes its scales, which are measured, or the one that is given.
void require_out(std::string_view op, std::string_view argument, const TensorView& out, const TensorView& scales,
                 const TensorView& quant_scale, const TensorView& x) {
  require_shape(op, argument, out, x.shape());
  require_dtype(op, argument, out, {kF32, kBF16, DType::kE4M3, DType::kI8});
  if (quant_scale.defined()) {
    OCTAVO_CHECK(!scales.defined(), "op {}: the scales of {} are measured or given, not both", op, argument);
    require_contiguous(op, argument, out);
    require_quant_scale(op, out, quant_scale);
  } else {
    require_row_scales(op, argument, out, scales);
  }
}

/// A second output beside `out`, which must exist and be modulated.
void require_second(std::string_view op, const SecondModulation& second, const TensorView& x, const TensorView& out,
                    const TensorView& scale) {
  if (!second.defined()) return;
  OCTAVO_CHECK(out.defined() && scale.defined(), "op {}: second goes with a modulated out", op);
  require_out(op, "second.out", second.out, second.dequant_scale, second.quant_scale, x);
  require_modulation(op, "second.scale", second.scale, x);
  require_modulation(op, "second.shift", second.shift, x);
}

void require_vector(std::string_view op, std::string_view argument, const TensorView& view, std::int64_t width) {
  require_shape(op, argument, view, Shape{width});
  require_dtype(op, argument, view, {kF32});
}

/// Residual streams in f32, outputs that are no codes.
template <typename Args>
bool has_vectors_and_plain_tensors(const Args& args, const DeviceTraits& traits) {
  const bool coded = is_quantized(args.out.dtype()) || is_quantized(args.second.out.dtype());
  return traits.has_avx2 && args.x.dtype() == kF32 && !coded;
}

void layer_norm_vector(ExecutionContext& context, const LayerNormArgs& args, void*) {
  run_rows(context, args, args.x.dim(0) * args.x.dim(1), args.x.dim(2), layer_norm_rows);
}

void gate_residual_norm_vector(ExecutionContext& context, const GateResidualNormArgs& args, void*) {
  run_rows(context, args, args.x.dim(0) * args.x.dim(1), 2 * args.x.dim(2), gate_residual_norm_rows);
}

void rms_norm_vector(ExecutionContext& context, const RmsNormArgs& args, void*) {
  run_rows(context, args, args.x.dim(0) * args.x.dim(1), args.x.dim(2), rms_norm_rows);
}

bool qkv_split_norm_vector_supports(const QkvSplitNormArgs& args, const DeviceTraits& traits) {
  const bool plain = args.k.dtype() == kF32 || args.k.dtype() == kBF16;
  return plain && args.q_factor == 1.0f && args.k_factor == 1.0f && has_vectors(args, traits);
}
void qkv_split_norm_vector(ExecutionContext& context, const QkvSplitNormArgs& args, void*) {
  run_rows(context, args, args.qkv.dim(0) * args.qkv.dim(1), args.qkv.dim(2), qkv_split_norm_rows);
}

}  // namespace

KernelTable<LayerNormArgs>& layer_norm_table() {
  static KernelTable<LayerNormArgs> table(
      "layer_norm", {{.name = "vector", .supports = has_vectors_and_plain_tensors, .run = layer_norm_vector},
                     {.name = "reference", .run = layer_norm_reference}});
  return table;
}

void layer_norm(ExecutionContext& context, const LayerNormArgs& args) {
  constexpr std::string_view op = "layer_norm";
  require_rank(op, "x", args.x, 3);
  require_dtype(op, "x", args.x, {kF32, kBF16});
  require_out(op, "out", args.out, args.out_dequant_scale, args.out_quant_scale, args.x);
  OCTAVO_CHECK(args.weight.defined() == args.bias.defined() && args.scale.defined() == args.shift.defined() &&
                   !(args.weight.defined() && args.scale.defined()),
               "op layer_norm: weight and bias, or scale and shift, or neither pair");
  if (args.weight.defined()) {
    require_vector(op, "weight", args.weight, args.x.dim(2));
    require_vector(op, "bias", args.bias, args.x.dim(2));
  }
  if (args.scale.defined()) {
    require_modulation(op, "scale", args.scale, args.x);
    require_modulation(op, "shift", args.shift, args.x);
  }
  require_second(op, args.second, args.x, args.out, args.scale);
  layer_norm_table().dispatch(context, args);
}

KernelTable<GateResidualNormArgs>& gate_residual_norm_table() {
  static KernelTable<GateResidualNormArgs> table(
      "gate_residual_norm",
      {{.name = "vector", .supports = has_vectors_and_plain_tensors, .run = gate_residual_norm_vector},
       {.name = "reference", .run = gate_residual_norm_reference}});
  return table;
}

void gate_residual_norm(ExecutionContext& context, const GateResidualNormArgs& args) {
  constexpr std::string_view op = "gate_residual_norm";
  require_rank(op, "x", args.x, 3);
  require_dtype(op, "x", args.x, {kF32, kBF16});
  require_shape(op, "y", args.y, args.x.shape());
  require_dtype(op, "y", args.y, {kF32, kBF16});
  require_modulation(op, "gate", args.gate, args.x);
  if (args.out.defined()) {
    require_out(op, "out", args.out, args.out_dequant_scale, args.out_quant_scale, args.x);
    require_modulation(op, "scale", args.scale, args.x);
    require_modulation(op, "shift", args.shift, args.x);
  }
  require_second(op, args.second, args.x, args.out, args.scale);
  gate_residual_norm_table().dispatch(context, args);
}

KernelTable<RmsNormArgs>& rms_norm_table() {
  static KernelTable<RmsNormArgs> table("rms_norm",
                                        {{.name = "vector", .supports = has_vectors, .run = rms_norm_vector},
                                         {.name = "reference", .run = rms_norm_reference}});
  return table;
}

void rms_norm(ExecutionContext& context, const RmsNormArgs& args) {
  constexpr std::string_view op = "rms_norm";
  require_rank(op, "x", args.x, 3);
  require_dtype(op, "x", args.x, {kF32});
  require_vector(op, "weight", args.weight, args.x.dim(2));
  require_shape(op, "out", args.out, args.x.shape());
  require_dtype(op, "out", args.out, {kF32, kBF16});
  rms_norm_table().dispatch(context, args);
}

KernelTable<QkvSplitNormArgs>& qkv_split_norm_table() {
  static KernelTable<QkvSplitNormArgs> table(
      "qkv_split_norm", {{.name = "vector", .supports = qkv_split_norm_vector_supports, .run = qkv_split_norm_vector},
                         {.name = "reference", .run = qkv_split_norm_reference}});
  return table;
}

void qkv_split_norm(ExecutionContext& context, const QkvSplitNormArgs& args) {
  constexpr std::string_view op = "qkv_split_norm";
  require_rank(op, "qkv", args.qkv, 3);
  require_dtype(op, "qkv", args.qkv, {kF32, kBF16});
  require_rank(op, "k", args.k, 4);
  const std::int64_t parts = args.q.defined() ? 3 : 2;
  const std::int64_t heads = args.k.dim(1);
  const std::int64_t head_width = args.k.dim(3);
  require_shape(op, "qkv", args.qkv, Shape{args.k.dim(0), args.k.dim(2), parts * heads * head_width});
  require_dtype(op, "k", args.k, {kF32, kBF16, DType::kF16, DType::kE4M3});
  require_shape(op, "v", args.v, args.k.shape());
  require_dtype(op, "v", args.v, {args.k.dtype() == DType::kE4M3 ? DType::kF16 : args.k.dtype()});
  if (args.q.defined()) {
    require_shape(op, "q", args.q, args.k.shape());
    require_dtype(op, "q", args.q, {args.k.dtype()});
  }
  if (args.q_weight.defined()) require_vector(op, "q_weight", args.q_weight, head_width);
  if (args.k_weight.defined()) require_vector(op, "k_weight", args.k_weight, head_width);
  qkv_split_norm_table().dispatch(context, args);
}

}  // namespace octavo::ops
