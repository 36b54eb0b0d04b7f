// Quantised matrices: codes of 8 bits with f32 scales, and the one formula that makes them. Ops, the loader and the
// writer of checkpoints all round through this file, so that a weight has the same codes whoever quantised it.
//
//   dequant_scale = amax / largest_code        at least 2^-126, so that its reciprocal is finite; 1 where amax is 0
//   code          = rn(x * (1 / dequant_scale))    1 / s rounded once to f32; ties to even; saturating
//   value         = code * dequant_scale
//
// amax is taken over the elements that share a scale (ScaleGrain). Codes of kI8 are symmetric: -127 to 127.
//
// What is not finite is never hidden: NaN or infinity among the elements of a measured scale makes the scale NaN or
// infinite, and every value of that group NaN when it is multiplied out. With a given scale an FP8 NaN stays NaN,
// infinity saturates, and kI8, which has no NaN, makes 0 of it: who reads files uses try_quantize_rows().
//
// Pure functions of host memory, from any thread.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "tensor/float8.h"
#include "tensor/tensor.h"

namespace octavo {

/// Which elements share a scale.
enum class ScaleGrain : std::uint8_t {
  kTensor,    // all
  kRow,       // a row: the output channel of a weight, the token of an activation
  kBlock128,  // kScaleBlock neighbours of a row; the last block of a row may be shorter
};
inline constexpr std::int64_t kScaleBlock = 128;

/// "tensor", "row", "block128".
std::string_view scale_grain_name(ScaleGrain grain);

/// Shape of the scales of [rows, inner] codes: [1], [rows] or [rows, ceil(inner / 128)].
Shape scale_shape(ScaleGrain grain, std::int64_t rows, std::int64_t inner);

/// Codes and their scales; owns nothing.
struct QuantizedView {
  TensorView codes;          // [rows, inner] or [B, T, inner] (rows = B * T), contiguous, e4m3 | e5m2 | i8
  TensorView dequant_scale;  // f32, contiguous, scale_shape() of rows and inner
  ScaleGrain grain = ScaleGrain::kRow;

  std::int64_t inner() const { return codes.dim(-1); }
  std::int64_t rows() const { return inner() == 0 ? 0 : codes.element_count() / inner(); }
};

/// True for e4m3, e5m2, i8.
constexpr bool is_quantized(DType dtype) {
  return dtype == DType::kE4M3 || dtype == DType::kE5M2 || dtype == DType::kI8;
}

/// The largest value of a code: 448, 57344 or 127.
constexpr float largest_code(DType format) {
  return format == DType::kE4M3 ? kE4M3Largest : format == DType::kE5M2 ? kE5M2Largest : 127.0f;
}

/// The scale for elements of magnitude up to `amax`, by the formula above. Requires is_quantized(format).
float dequant_scale_of(float amax, DType format);

/// Rounds to the nearest integer, ties to even, within -127 to 127; NaN becomes 0. Needs the default rounding mode.
inline std::int8_t to_int8_code(float value) {
  constexpr float kAligner = 12582912.0f;  // 1.5 * 2^23: the last mantissa bit of a sum with it weighs 1
  const float number = value == value ? value : 0.0f;
  const float clamped = std::clamp(number, -127.0f, 127.0f);
  return static_cast<std::int8_t>(std::bit_cast<std::int32_t>(clamped + kAligner) -
                                  std::bit_cast<std::int32_t>(kAligner));
}

/// The largest magnitude of f32 | bf16 | f16 elements, rank 2, rows may be strided; 0 when there are none. NaN when one
/// of them is NaN, else infinity when one is infinite.
float largest_magnitude(const TensorView& x);

/// Writes out.dequant_scale from x [rows, inner], f32 | bf16 | f16, rows may be strided.
void measure_scales(const TensorView& x, const QuantizedView& out);

/// Writes out.codes from x with the scales that out.dequant_scale holds: those of measure_scales(), or given ones.
void encode_rows(const TensorView& x, const QuantizedView& out);

/// measure_scales() and encode_rows().
void quantize_rows(const TensorView& x, const QuantizedView& out);

/// As quantize_rows() when every element is finite. Else kDataCorruption that names `subject`, row and column of the
/// first one that is not; rows count from `first_row` (a writer comes in portions). `out` is then of no use.
Status try_quantize_rows(const TensorView& x, const QuantizedView& out, const std::string& subject,
                         std::int64_t first_row = 0);

/// code * dequant_scale, in f32 and rounded once to out [rows, inner], f32 | bf16 | f16, rows may be strided.
void dequantize_rows(const QuantizedView& quantized, const TensorView& out);

/// The values of codes without a scale, exact.
void decode_codes(const std::byte* codes, DType format, float* values, std::int64_t count);

}  // namespace octavo
