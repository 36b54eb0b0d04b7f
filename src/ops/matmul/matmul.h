// matmul: out = epilogue(x * weight^T). The one product of the engine; only layers::Linear calls it with weights.
#pragma once

#include <memory>

#include "ops/activation/activation_kind.h"
#include "ops/kernel_table.h"

namespace octavo::ops {

/// A weight rearranged by a backend for its own kernels; immutable, shareable between contexts.
class PackedWeight {
 public:
  virtual ~PackedWeight() = default;
  virtual std::size_t byte_count() const = 0;
};

/// A weight as products see it. `plain` stays the truth (16-bit as in the file, or f32); `packed` is optional.
struct MatmulWeight {
  TensorView plain;                            // [N, K], contiguous rows, f32 | f16 | bf16
  std::shared_ptr<const PackedWeight> packed;  // for activations of packed_for
  DType packed_for = DType::kF32;
};

/// What happens to a product before it is stored, in this order.
struct Epilogue {
  TensorView bias;  // [N] f32 | bf16, or undefined
  Activation activation = Activation::kNone;
  /// out = residual + gate * value when defined. The residual may be `out` itself.
  TensorView residual;  // [M, N] or [B, T, N] (outer strides allowed), of out's dtype
  TensorView gate;      // [B, N] f32, one row per batch row (rows of x / B each), or undefined = 1
};

struct MatmulArgs {
  TensorView x;         // [M, K] or [B, T, K] (outer strides allowed), f32 | bf16
  MatmulWeight weight;  // [N, K]
  Epilogue epilogue;
  TensorView out;  // [M, N] or [B, T, N] (outer strides allowed), f32 | bf16; must not overlap x
};

/// Accumulates in f32 whatever the dtypes. f32 x multiplies weights widened exactly; bf16 x multiplies weights
/// rounded to bf16. A row of the result depends on that row of x alone.
void matmul(ExecutionContext& context, const MatmulArgs& args);
KernelTable<MatmulArgs>& matmul_table();

/// Rearranges `plain` once at load for activations of `activation_dtype`. `plain` is host memory, or memory of
/// `device`. On the CPU the result's `plain` is the one given, which must outlive the result's use only if packing
/// returned nothing; on another device it is memory of that device that `packed` owns. Returns the weight unchanged
/// when the CPU has no better layout.
Result<MatmulWeight> pack_matmul_weight(device::Device& device, const TensorView& plain, DType activation_dtype);

/// What packs for devices that are not the CPU; set by the backend when it is opened, before the first load.
using MatmulPacker = Result<MatmulWeight> (*)(device::Device& device, const TensorView& plain, DType activation_dtype);
void set_matmul_packer(MatmulPacker packer);

}  // namespace octavo::ops
