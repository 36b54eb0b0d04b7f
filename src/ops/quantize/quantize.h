// quantize: rows as codes of 8 bits with scales (tensor/quantized.h has the formula): what a product in FP8 reads.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/quantized.h"

namespace octavo::ops {

/// With v = x * multiplier (rounded to f32), and v = 0 in the columns of `outliers`:
///   kRow, kBlock128: measures out.dequant_scale from v, then codes v with it
///   kTensor:         codes v with the scale that out.dequant_scale holds; what is larger saturates
/// A row's codes depend on that row alone. NaN and infinity show in the product as tensor/quantized.h says.
struct QuantizeArgs {
  TensorView x;           // [M, K] or [B, T, K] (outer strides allowed), f32 | bf16 | f16
  TensorView multiplier;  // [K] f32, or undefined = 1
  TensorView outliers;    // [k] i32, ascending, 0 <= column < K; or undefined
  QuantizedView out;      // codes as x, contiguous
  /// v in the columns of `outliers`, for the thin product beside the quantised one.
  TensorView outlier_values;  // [M, k] or [B, T, k], contiguous, bf16; defined as `outliers` is
};
void quantize(ExecutionContext& context, const QuantizeArgs& args);
KernelTable<QuantizeArgs>& quantize_table();

}  // namespace octavo::ops
