#include "ops/activation/activation.h"

#include "ops/activation/activation_kernels.h"
#include "ops/parallel_rows.h"
#include "ops/require.h"
#include "tensor/quantized.h"

namespace octavo::ops {
namespace {

void activation_vector(ExecutionContext& context, const ActivationArgs& args, void*) {
  const std::int64_t rows = args.x.rank() == 3 ? args.x.dim(0) * args.x.dim(1) : args.x.dim(0);
  constexpr std::int64_t kCost = 8;  // an exponential costs several times what moving an element does
  run_rows(context, args, rows, kCost * args.x.dim(-1), activation_rows);
}

bool has_vectors_and_plain_out(const ActivationArgs& args, const DeviceTraits& traits) {
  return traits.has_avx2 && !is_quantized(args.out.dtype());
}

}  // namespace

KernelTable<ActivationArgs>& activation_table() {
  static KernelTable<ActivationArgs> table(
      "activation", {{.name = "vector", .supports = has_vectors_and_plain_out, .run = activation_vector},
                     {.name = "reference", .run = activation_reference}});
  return table;
}

void activation(ExecutionContext& context, const ActivationArgs& args) {
  constexpr std::string_view op = "activation";
  OCTAVO_CHECK(args.x.rank() == 2 || args.x.rank() == 3, "op activation: x is {}, expected rank 2 or 3",
               args.x.shape().to_string());
  require_dtype(op, "x", args.x, {DType::kF32, DType::kBF16});
  require_shape(op, "out", args.out, args.x.shape());
  require_dtype(op, "out", args.out, {DType::kF32, DType::kBF16, DType::kE4M3, DType::kI8});
  require_row_scales(op, "out", args.out, args.out_dequant_scale);
  if (args.multiplier.defined()) {
    require_shape(op, "multiplier", args.multiplier, args.x.shape());
    require_dtype(op, "multiplier", args.multiplier, {DType::kF32, DType::kBF16});
  }
  activation_table().dispatch(context, args);
}

}  // namespace octavo::ops
