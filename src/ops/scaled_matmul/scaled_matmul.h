// scaled_matmul: the product of matrices that are stored as codes of 8 bits with scales (tensor/quantized.h).
#pragma once

#include "ops/matmul/matmul.h"
#include "tensor/quantized.h"

namespace octavo::ops {

/// A weight in 8 bits as products see it. `quantized` stays the truth; `packed` is optional.
struct ScaledWeight {
  QuantizedView quantized;                     // [N, K]
  bool one_scale = false;                      // all scales are one, also where they are stored one a row
  TensorView outlier_weight;                   // [N, k], contiguous, bf16, or undefined
  std::shared_ptr<const PackedWeight> packed;  // for activations as pack_scaled_weight() was told
};

/// out = epilogue(sum over blocks of K of (scales of x and weight) * (sum of products of codes)
///                + outliers * outlier_weight^T)
/// where a block is all of K unless a scale is of kBlock128. Sums are in f32 and products of codes exact; the
/// tensor cores of a GPU sum products of FP8 with fewer bits (docs/numerics.md). A row of the
/// result depends on that row of x alone.
struct ScaledMatmulArgs {
  /// [M, K] or [B, T, K]: codes with scales. Or plain activations (weights alone in 8 bits): f32 | bf16 "codes", outer
  /// strides allowed, without scale.
  QuantizedView x;
  ScaledWeight weight;
  TensorView outliers;  // [M, k] or [B, T, k], contiguous, bf16; defined as weight.outlier_weight is
  Epilogue epilogue;
  TensorView out;  // [M, N] or [B, T, N] (outer strides allowed), f32 | bf16 | e4m3; must not overlap x
  /// [1] f32: what values are multiplied by before they become codes, which saturate (the reciprocal of the dequant
  /// scale of what reads them); defined when out is e4m3, which has no residual.
  TensorView out_quant_scale;
};
void scaled_matmul(ExecutionContext& context, const ScaledMatmulArgs& args);
KernelTable<ScaledMatmulArgs>& scaled_matmul_table();

/// What x will be: the type of its codes and their grain, or f32 | bf16 (the grain does not count).
struct ScaledActivations {
  DType dtype = DType::kE4M3;
  ScaleGrain grain = ScaleGrain::kRow;
  /// The one scale of kTensor, when calls will always give this very view; it may then be multiplied in beforehand.
  TensorView static_scale = {};
};
/// Rearranges a weight once at load; codes stay 8 bits in memory. The views given are host memory, or memory of
/// `device`. On the CPU they must outlive the result's use only for the reference row, and the weight comes back
/// unchanged when there is no better layout; on another device the result's views are memory that `packed` owns.
Result<ScaledWeight> pack_scaled_weight(device::Device& device, const QuantizedView& quantized,
                                        const TensorView& outlier_weight, const ScaledActivations& activations);

/// What packs for devices that are not the CPU; set by the backend when it is opened, before the first load.
using ScaledMatmulPacker = Result<ScaledWeight> (*)(device::Device& device, const QuantizedView& quantized,
                                                    const TensorView& outlier_weight,
                                                    const ScaledActivations& activations);
void set_scaled_matmul_packer(ScaledMatmulPacker packer);

}  // namespace octavo::ops
