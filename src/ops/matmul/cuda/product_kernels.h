// The kernels around products: what happens before (codes and strided rows become factors that a product takes) and
// after (scales, bias, activation, gate, residual).
#pragma once

#include <cuda_runtime_api.h>

#include "ops/activation/activation_kind.h"
#include "tensor/tensor.h"

namespace octavo::ops {

struct Epilogue;

/// Where row r of the flattened [B, T] lies, in elements: r / group * group_stride + r % group * row_stride.
struct RowLayout {
  std::int64_t group = 1;
  std::int64_t group_stride = 0;
  std::int64_t row_stride = 0;
};
RowLayout row_layout(const TensorView& view);

/// The epilogue as kernels see it.
struct EpilogueWork {
  const void* bias = nullptr;
  bool bias_is_f32 = true;
  Activation activation = Activation::kNone;
  const float* gate = nullptr;
  std::int64_t gate_stride = 0, rows_per_gate = 1;
  const void* residual = nullptr;
  RowLayout residual_rows;
  void* out = nullptr;
  DType out_dtype = DType::kF32;       // or bf16, which residual is too, or e4m3
  const float* quant_scale = nullptr;  // of e4m3
  RowLayout out_rows;
  int width = 0;
  bool in_fours = false;  // four neighbours of a row lie where vectors may, in all of these
};
EpilogueWork epilogue_work(const Epilogue& epilogue, const TensorView& out);

/// Sums of a product, and the scales that make values of them.
struct SumWork {
  static constexpr int kMostParts = 3;
  const void* parts[kMostParts] = {};  // [rows, stride]; the sum of all is meant
  int part_count = 1;
  bool integers = false;    // i32 instead of f32; one part
  std::int64_t stride = 0;  // elements, a multiple of 4
  const float* row_scale = nullptr;
  int row_scale_stride = 1;  // 0: one for all
  const float* column_scale = nullptr;
  int column_scale_stride = 1;
  const float* extra = nullptr;  // added after scaling; [rows, stride]
};

/// out rows [first_row, first_row + rows) = epilogue(scales * sums + extra), where `sums` and its row_scale begin at
/// first_row.
void finish_rows(cudaStream_t stream, int multiprocessors, const SumWork& sums, const EpilogueWork& epilogue,
                 std::int64_t first_row, std::int64_t rows);

/// Rows of any type as factors.
struct ConvertWork {
  const void* from = nullptr;  // f32 | f16 | bf16 | e4m3 | e5m2 | i8
  DType from_dtype = DType::kF32;
  RowLayout from_rows;
  std::int64_t first_row = 0, rows = 0;
  std::int64_t inner = 0;
  /// Values are multiplied by scale[row * scale_row_stride + k / kBlock * scale_block_stride].
  static constexpr int kBlock = 128;  // kScaleBlock
  const float* scale = nullptr;
  std::int64_t scale_row_stride = 0, scale_block_stride = 0;
  void* to = nullptr;  // f32 | f16 | bf16, [rows, to_stride], zeros from `inner` on; zero rows up to `padded_rows`
  DType to_dtype = DType::kBF16;
  std::int64_t to_stride = 0, padded_rows = 0;
  /// What rounding to `to` left over, at to + rest_offset elements; 0 = not wanted.
  std::int64_t rest_offset = 0;
  /// Rows are first multiplied by a power of two that brings their largest element near 2^14, so that f16 holds them,
  /// and its reciprocal is written here; null = rows as they are.
  float* row_scale = nullptr;
};
void convert_rows(cudaStream_t stream, const ConvertWork& work);

/// `count` codes as bf16 | f16, exactly. Both 16-byte aligned.
void widen_codes(cudaStream_t stream, const void* codes, DType format, void* to, DType to_dtype, std::int64_t count);

/// to[i] = *value.
void fill_with(cudaStream_t stream, const float* value, float* to, std::int64_t count);
/// to[i] = by * from[i * from_stride]; `by` is read on the device when given.
void scale_vector(cudaStream_t stream, const float* from, int from_stride, const float* by, float* to,
                  std::int64_t count);

/// A product of few rows with a weight that is read once (few_rows.cu).
struct FewRowsWork {
  const void* weight = nullptr;  // [width, inner], 16-byte aligned: e4m3 | e5m2 | i8 | f16 | bf16
  DType weight_dtype = DType::kI8;
  int width = 0, inner = 0;  // inner a multiple of kFewRowsInner
  /// [2, kFewRows, inner]: f16 (bf16 for a bf16 weight) and what rounding left over; zeros in rows up to
  /// few_rows_padded(rows).
  const void* x = nullptr;
  int rows = 0;                         // up to kFewRows
  std::int64_t first_row = 0;           // in out
  const float* row_scale = nullptr;     // [rows] or null
  const float* column_scale = nullptr;  // [width] or null
  int column_scale_stride = 1;          // 0: one for all
};
inline constexpr int kFewRows = 64;
inline constexpr int kFewRowsInner = 64;
/// Rows that the kernel multiplies.
constexpr int few_rows_padded(int rows) { return rows <= 16 ? 16 : rows <= 32 ? 32 : rows <= 56 ? 56 : 64; }
void multiply_few_rows(cudaStream_t stream, const FewRowsWork& work, const EpilogueWork& epilogue);

}  // namespace octavo::ops
