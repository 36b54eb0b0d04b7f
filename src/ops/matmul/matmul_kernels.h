// The rows of the matmul table and the row passes they share.
#pragma once

#include "ops/matmul/matmul.h"

namespace octavo::ops {

/// Where row r of the flattened [B, T] lies; views of rank 2 or 3.
void* matmul_row(const TensorView& view, std::int64_t row);
/// Rows in all: M, or B * T.
std::int64_t matmul_rows(const TensorView& view);
/// The gate's row for row `row` of `rows`, or null.
const float* matmul_gate_row(const Epilogue& epilogue, std::int64_t row, std::int64_t rows);

void matmul_reference(ExecutionContext& context, const MatmulArgs& args, void* scratch);

bool matmul_onednn_supports(const MatmulArgs& args, const DeviceTraits& traits);
std::size_t matmul_onednn_scratch_bytes(const MatmulArgs& args, const DeviceTraits& traits);
void matmul_onednn(ExecutionContext& context, const MatmulArgs& args, void* scratch);
/// The packed layout of oneDNN's kernels on this processor, or nothing when it has none for these activations.
Result<std::shared_ptr<const PackedWeight>> pack_onednn_weight(device::Device& device, const TensorView& plain,
                                                               DType activation_dtype);

/// to[begin, end) = from[begin, end) as f32, exactly; `from` is f16, bf16 or f32.
void widen_elements(DType dtype, const void* from, float* to, std::int64_t begin, std::int64_t end);
/// Rows [begin, end): out = residual + gate * activation(product); product [M, N] f32, dense, has its bias already and
/// is overwritten.
void finish_product_rows(const MatmulArgs& args, float* product, std::int64_t begin, std::int64_t end);

}  // namespace octavo::ops
