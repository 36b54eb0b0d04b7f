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
std::size_t matmul_onednn_scratch_bytes(const ExecutionContext& context, const MatmulArgs& args);
void matmul_onednn(ExecutionContext& context, const MatmulArgs& args, void* scratch);
/// The packed layout of oneDNN's kernels on this processor, or nothing when it has none for these activations. `plain`
/// may be codes of 8 bits too, which then stay codes in memory.
Result<std::shared_ptr<const PackedWeight>> pack_onednn_weight(device::Device& device, const TensorView& plain,
                                                               DType activation_dtype);

/// to[begin, end) = from[begin, end); `from` is f32, f16, bf16, or codes of 8 bits as numbers without a scale; `to` is
/// f32 (exact) or bf16 (exact for codes).
void widen_elements(DType dtype, const void* from, DType to_dtype, void* to, std::int64_t begin, std::int64_t end);

/// The checks of an epilogue for out [rows of x, width], with `op` named in what they throw.
void require_epilogue(std::string_view op, const Epilogue& epilogue, const TensorView& x, const TensorView& out,
                      std::int64_t width);

/// Bias and residual are f32, as the CPU's fast rows read them.
bool has_plain_epilogue(const Epilogue& epilogue);

/// Part of a product before its epilogue.
struct ProductTile {
  const float* values;
  std::int64_t stride;  // between rows of values
  std::int64_t first_row, rows;
  std::int64_t first_column, columns;
  bool adds_bias;
};
/// out = residual + gate * activation(values + bias) at the tile's place.
void finish_product(const MatmulArgs& args, const ProductTile& tile);

bool matmul_panels_supports(const MatmulArgs& args, const DeviceTraits& traits);
std::size_t matmul_panels_scratch_bytes(const ExecutionContext& context, const MatmulArgs& args);
void matmul_panels(ExecutionContext& context, const MatmulArgs& args, void* scratch);
/// Panels for f32 activations; `plain` may be codes of 8 bits too.
Result<std::shared_ptr<const PackedWeight>> pack_panels_weight(device::Device& device, const TensorView& plain);

inline constexpr std::int64_t kPanelColumns = 64;
inline constexpr std::int64_t kPanelRows = 48;  // a tile of 12 KiB; the panel is read from cache once for 48 rows
/// Block `block` of kPanelRows rows (counted within each batch row) of the whole product.
void panel_product(const MatmulArgs& args, const float* panels, std::int64_t block);

}  // namespace octavo::ops
