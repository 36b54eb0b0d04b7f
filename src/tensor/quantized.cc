#include "tensor/quantized.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "tensor/convert.h"

namespace octavo {
namespace {

constexpr std::int64_t kChunk = 1024;  // elements widened at a time; whole blocks of scales
static_assert(kChunk % kScaleBlock == 0);

/// Of floats seen as magnitudes; their order as integers is their order as numbers, infinity and then NaN on top.
std::uint32_t largest_bits(const float* values, std::int64_t count) {
  std::uint32_t largest = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    largest = std::max(largest, std::bit_cast<std::uint32_t>(values[i]) & 0x7FFFFFFFu);
  }
  return largest;
}

void check_source(const TensorView& x) {
  OCTAVO_CHECK(x.rank() == 2 && (x.dtype() == DType::kF32 || x.dtype() == DType::kBF16 || x.dtype() == DType::kF16),
               "quantised from {} {}, expected rank 2 of f32, bf16 or f16", dtype_name(x.dtype()),
               x.shape().to_string());
}

void check_quantized(const QuantizedView& view) {
  OCTAVO_CHECK(is_quantized(view.codes.dtype()) && view.codes.rank() >= 2 && view.codes.contiguous(),
               "codes are {} {}, expected contiguous e4m3, e5m2 or i8", dtype_name(view.codes.dtype()),
               view.codes.shape().to_string());
  const Shape expected = scale_shape(view.grain, view.rows(), view.inner());
  OCTAVO_CHECK(view.dequant_scale.dtype() == DType::kF32 && view.dequant_scale.shape() == expected &&
                   view.dequant_scale.contiguous(),
               "scales are {} {}, expected contiguous f32 {}", dtype_name(view.dequant_scale.dtype()),
               view.dequant_scale.shape().to_string(), expected.to_string());
}

void check_pair(const TensorView& x, const QuantizedView& view) {
  check_source(x);
  check_quantized(view);
  OCTAVO_CHECK(x.dim(0) == view.rows() && x.dim(1) == view.inner(), "x is {}, codes are {}", x.shape().to_string(),
               view.codes.shape().to_string());
}

/// visit(values, begin, count) for the elements of a row in f32, a chunk at a time.
template <typename Visit>
void for_each_chunk(const TensorView& x, std::int64_t row, const Visit& visit) {
  const std::size_t element = dtype_size(x.dtype());
  const auto* from = static_cast<const std::byte*>(x.data()) + static_cast<std::size_t>(row * x.stride(0)) * element;
  std::array<float, kChunk> values;
  for (std::int64_t begin = 0; begin < x.dim(1); begin += kChunk) {
    const std::int64_t count = std::min(kChunk, x.dim(1) - begin);
    convert_elements(from + static_cast<std::size_t>(begin) * element, x.dtype(),
                     reinterpret_cast<std::byte*>(values.data()), DType::kF32, count);
    visit(values.data(), begin, count);
  }
}

/// visit(scale, offset, count) for each run of one scale among elements [begin, begin + count) of a row.
template <typename Visit>
void for_each_scale(const QuantizedView& view, std::int64_t row, std::int64_t begin, std::int64_t count,
                    const Visit& visit) {
  const float* scales = view.dequant_scale.f32();
  if (view.grain != ScaleGrain::kBlock128) {
    visit(view.grain == ScaleGrain::kRow ? scales[row] : scales[0], std::int64_t{0}, count);
    return;
  }
  const float* blocks = scales + row * view.dequant_scale.dim(1) + begin / kScaleBlock;
  for (std::int64_t offset = 0; offset < count; offset += kScaleBlock) {
    visit(blocks[offset / kScaleBlock], offset, std::min(kScaleBlock, count - offset));
  }
}

void encode_run(const float* values, float reciprocal, DType format, std::byte* codes, std::int64_t count) {
  switch (format) {
    case DType::kE4M3:
      for (std::int64_t i = 0; i < count; ++i) codes[i] = std::byte{to_float8_e4m3(values[i] * reciprocal).bits};
      return;
    case DType::kE5M2:
      for (std::int64_t i = 0; i < count; ++i) codes[i] = std::byte{to_float8_e5m2(values[i] * reciprocal).bits};
      return;
    default:
      for (std::int64_t i = 0; i < count; ++i) {
        codes[i] = static_cast<std::byte>(to_int8_code(values[i] * reciprocal));
      }
      return;
  }
}

}  // namespace

std::string_view scale_grain_name(ScaleGrain grain) {
  switch (grain) {
    case ScaleGrain::kTensor:
      return "tensor";
    case ScaleGrain::kRow:
      return "row";
    case ScaleGrain::kBlock128:
      return "block128";
  }
  return "";
}

Shape scale_shape(ScaleGrain grain, std::int64_t rows, std::int64_t inner) {
  switch (grain) {
    case ScaleGrain::kTensor:
      return Shape{1};
    case ScaleGrain::kRow:
      return Shape{rows};
    case ScaleGrain::kBlock128:
      return Shape{rows, (inner + kScaleBlock - 1) / kScaleBlock};
  }
  return Shape{};
}

float dequant_scale_of(float amax, DType format) {
  OCTAVO_CHECK(is_quantized(format), "{} has no scale", dtype_name(format));
  if (amax == 0.0f) return 1.0f;
  const float scale = amax / largest_code(format);
  constexpr float kSmallest = std::numeric_limits<float>::min();
  return scale < kSmallest ? kSmallest : scale;
}

float largest_magnitude(const TensorView& x) {
  check_source(x);
  std::uint32_t largest = 0;
  for (std::int64_t row = 0; row < x.dim(0); ++row) {
    for_each_chunk(x, row, [&largest](const float* values, std::int64_t, std::int64_t count) {
      largest = std::max(largest, largest_bits(values, count));
    });
  }
  return std::bit_cast<float>(largest);
}

void measure_scales(const TensorView& x, const QuantizedView& out) {
  check_pair(x, out);
  const DType format = out.codes.dtype();
  float* scales = out.dequant_scale.f32();
  if (out.grain == ScaleGrain::kTensor) {
    scales[0] = dequant_scale_of(largest_magnitude(x), format);
    return;
  }
  for (std::int64_t row = 0; row < x.dim(0); ++row) {
    if (out.grain == ScaleGrain::kRow) {
      scales[row] = dequant_scale_of(largest_magnitude(x.slice(0, row, 1)), format);
      continue;
    }
    float* blocks = scales + row * out.dequant_scale.dim(1);
    for_each_chunk(x, row, [blocks, format](const float* values, std::int64_t begin, std::int64_t count) {
      for (std::int64_t offset = 0; offset < count; offset += kScaleBlock) {
        const std::uint32_t largest = largest_bits(values + offset, std::min(kScaleBlock, count - offset));
        blocks[(begin + offset) / kScaleBlock] = dequant_scale_of(std::bit_cast<float>(largest), format);
      }
    });
  }
}

void encode_rows(const TensorView& x, const QuantizedView& out) {
  check_pair(x, out);
  auto* codes = static_cast<std::byte*>(out.codes.data());
  for (std::int64_t row = 0; row < x.dim(0); ++row) {
    for_each_chunk(x, row, [&](const float* values, std::int64_t begin, std::int64_t count) {
      std::byte* to = codes + row * out.inner() + begin;
      for_each_scale(out, row, begin, count, [&](float scale, std::int64_t offset, std::int64_t length) {
        encode_run(values + offset, 1.0f / scale, out.codes.dtype(), to + offset, length);
      });
    });
  }
}

void quantize_rows(const TensorView& x, const QuantizedView& out) {
  measure_scales(x, out);
  encode_rows(x, out);
}

Status try_quantize_rows(const TensorView& x, const QuantizedView& out, const std::string& subject,
                         std::int64_t first_row) {
  check_pair(x, out);
  for (std::int64_t row = 0; row < x.dim(0); ++row) {
    std::int64_t column = -1;
    float found = 0;
    for_each_chunk(x, row, [&](const float* values, std::int64_t begin, std::int64_t count) {
      if (column >= 0 || std::isfinite(std::bit_cast<float>(largest_bits(values, count)))) return;
      const float* bad = std::find_if(values, values + count, [](float value) { return !std::isfinite(value); });
      column = begin + (bad - values);
      found = *bad;
    });
    if (column >= 0) {
      return data_corruption(
          subject, fmt::format("is {} in row {}, column {}: it cannot be quantised", found, first_row + row, column));
    }
  }
  quantize_rows(x, out);
  return {};
}

void dequantize_rows(const QuantizedView& quantized, const TensorView& out) {
  check_pair(out, quantized);
  const DType format = quantized.codes.dtype();
  const auto* codes = static_cast<const std::byte*>(quantized.codes.data());
  const std::size_t element = dtype_size(out.dtype());
  std::array<float, kChunk> values;
  for (std::int64_t row = 0; row < out.dim(0); ++row) {
    auto* to = static_cast<std::byte*>(out.data()) + static_cast<std::size_t>(row * out.stride(0)) * element;
    for (std::int64_t begin = 0; begin < out.dim(1); begin += kChunk) {
      const std::int64_t count = std::min(kChunk, out.dim(1) - begin);
      decode_codes(codes + row * quantized.inner() + begin, format, values.data(), count);
      for_each_scale(quantized, row, begin, count, [&](float scale, std::int64_t offset, std::int64_t length) {
        for (std::int64_t i = offset; i < offset + length; ++i) values[static_cast<std::size_t>(i)] *= scale;
      });
      convert_elements(reinterpret_cast<const std::byte*>(values.data()), DType::kF32,
                       to + static_cast<std::size_t>(begin) * element, out.dtype(), count);
    }
  }
}

void decode_codes(const std::byte* codes, DType format, float* values, std::int64_t count) {
  OCTAVO_CHECK(is_quantized(format), "{} has no codes", dtype_name(format));
  if (format == DType::kI8) {
    const auto* numbers = reinterpret_cast<const std::int8_t*>(codes);
    for (std::int64_t i = 0; i < count; ++i) values[i] = static_cast<float>(numbers[i]);
    return;
  }
  const std::array<float, 256>& table = format == DType::kE4M3 ? kE4M3Values : kE5M2Values;
  for (std::int64_t i = 0; i < count; ++i) values[i] = table[std::to_integer<std::size_t>(codes[i])];
}

}  // namespace octavo
