#include "ops/conv2d/conv2d.h"

#include "ops/conv2d/conv2d_kernels.h"
#include "ops/require.h"

namespace octavo::ops {
namespace {

ConvPacker& other_packer() {
  static ConvPacker packer = nullptr;
  return packer;
}

}  // namespace

void set_conv_packer(ConvPacker packer) { other_packer() = packer; }

KernelTable<Conv2dArgs>& conv2d_table() {
  static KernelTable<Conv2dArgs> table("conv2d", {{.name = "onednn_packed",
                                                   .supports = conv2d_onednn_supports,
                                                   .scratch_bytes = conv2d_onednn_scratch_bytes,
                                                   .run = conv2d_onednn},
                                                  {.name = "reference", .run = conv2d_reference}});
  return table;
}

ConvRows conv_rows(const Conv2dArgs& args) {
  const std::int64_t zoom = args.upsample ? 2 : 1;
  ConvRows rows;
  rows.skipped = args.upsample && args.halo_above ? 1 : 0;
  rows.rows = args.x.dim(1) * zoom - rows.skipped - (args.upsample && args.halo_below ? 1 : 0);
  rows.pad_before = args.halo_above ? 0 : args.pad_before;
  rows.pad_after = args.halo_below ? 0 : args.pad_after;
  return rows;
}

void conv2d(ExecutionContext& context, const Conv2dArgs& args) {
  constexpr std::string_view op = "conv2d";
  const TensorView& weight = args.weight.plain;
  require_rank(op, "x", args.x, 4);
  require_dtype(op, "x", args.x, {DType::kF32, DType::kBF16});
  require_contiguous(op, "x", args.x);
  require_rank(op, "weight", weight, 4);
  require_dtype(op, "weight", weight, {DType::kF32, DType::kF16, DType::kBF16});
  require_contiguous(op, "weight", weight);
  const std::int64_t kernel = weight.dim(2);
  OCTAVO_CHECK((kernel == 1 || kernel == 3) && weight.dim(3) == kernel, "op conv2d: weight is {}, expected 1x1 or 3x3",
               weight.shape().to_string());
  OCTAVO_CHECK(weight.dim(1) == args.x.dim(3), "op conv2d: weight is {} for x {}", weight.shape().to_string(),
               args.x.shape().to_string());
  OCTAVO_CHECK((args.stride == 1 || args.stride == 2) && args.pad_before >= 0 && args.pad_after >= 0,
               "op conv2d: stride {}, padding {} and {}", args.stride, args.pad_before, args.pad_after);
  OCTAVO_CHECK(args.x.dim(0) == 1 || !(args.halo_above || args.halo_below), "op conv2d: a halo of {} pictures",
               args.x.dim(0));
  const std::int64_t zoom = args.upsample ? 2 : 1;
  const auto out_side = [&](std::int64_t padded_side) { return (padded_side - kernel) / args.stride + 1; };
  const ConvRows rows = conv_rows(args);
  require_shape(op, "out", args.out,
                Shape{args.x.dim(0), out_side(rows.rows + rows.pad_before + rows.pad_after),
                      out_side(args.x.dim(2) * zoom + args.pad_before + args.pad_after), weight.dim(0)});
  require_dtype(op, "out", args.out, {DType::kF32, DType::kBF16});
  require_contiguous(op, "out", args.out);
  if (args.bias.defined()) {
    require_shape(op, "bias", args.bias, Shape{weight.dim(0)});
    require_dtype(op, "bias", args.bias, {DType::kF32, DType::kBF16});
  }
  if (args.residual.defined()) {
    require_shape(op, "residual", args.residual, args.out.shape());
    require_dtype(op, "residual", args.residual, {args.out.dtype()});
    require_contiguous(op, "residual", args.residual);
  }
  conv2d_table().dispatch(context, args);
}

Result<ConvWeight> pack_conv_weight(device::Device& device, const TensorView& plain, DType activation_dtype,
                                    bool upsamples) {
  if (device.traits().kind != DeviceKind::kCpu) {
    OCTAVO_CHECK(other_packer() != nullptr, "op conv2d: no packer for {}", device.traits().name);
    return other_packer()(device, plain, activation_dtype, upsamples);
  }
  ConvWeight weight{.plain = plain, .packed = nullptr, .packed_for = activation_dtype};
  OCTAVO_ASSIGN_OR_RETURN(weight.packed, pack_onednn_conv_weight(device, plain, activation_dtype));
  return weight;
}

}  // namespace octavo::ops
