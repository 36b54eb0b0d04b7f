#include "tensor/convert.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"
#include "tensor/float8.h"

namespace octavo {
namespace {

constexpr std::int64_t kBlock = 1024;  // elements that pass through a buffer of floats at a time

template <typename T>
void widen(const std::byte* from, float* to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    T value;  // memcpy: a file may hold the element at an odd address
    std::memcpy(&value, from + static_cast<std::size_t>(i) * sizeof(T), sizeof(T));
    to[i] = to_float(value);
  }
}

template <typename T, T (*kEncode)(float)>
void narrow(const float* from, std::byte* to, std::int64_t count) {
  auto* out = reinterpret_cast<T*>(to);
  for (std::int64_t i = 0; i < count; ++i) out[i] = kEncode(from[i]);
}

float same(float value) { return value; }

void widen_any(const std::byte* from, DType dtype, float* to, std::int64_t count) {
  switch (dtype) {
    case DType::kF32:
      return widen<float>(from, to, count);
    case DType::kF16:
      return widen<Float16>(from, to, count);
    case DType::kBF16:
      return widen<BFloat16>(from, to, count);
    case DType::kE4M3:
      return widen<Float8E4M3>(from, to, count);
    case DType::kE5M2:
      return widen<Float8E5M2>(from, to, count);
    case DType::kI8:
    case DType::kI32:
      break;
  }
}

void narrow_any(const float* from, std::byte* to, DType dtype, std::int64_t count) {
  switch (dtype) {
    case DType::kF32:
      return narrow<float, same>(from, to, count);
    case DType::kF16:
      return narrow<Float16, to_float16>(from, to, count);
    case DType::kBF16:
      return narrow<BFloat16, to_bfloat16>(from, to, count);
    case DType::kE4M3:
      return narrow<Float8E4M3, to_float8_e4m3>(from, to, count);
    case DType::kE5M2:
      return narrow<Float8E5M2, to_float8_e5m2>(from, to, count);
    case DType::kI8:
    case DType::kI32:
      break;
  }
}

}  // namespace

bool is_floating(DType dtype) { return dtype != DType::kI8 && dtype != DType::kI32; }

void convert_elements(const std::byte* from, DType from_dtype, std::byte* to, DType to_dtype, std::int64_t count) {
  if (from_dtype == to_dtype) {
    if (count > 0) std::memcpy(to, from, static_cast<std::size_t>(count) * dtype_size(from_dtype));
    return;
  }
  OCTAVO_CHECK(is_floating(from_dtype) && is_floating(to_dtype), "no conversion from {} to {}", dtype_name(from_dtype),
               dtype_name(to_dtype));
  std::array<float, kBlock> block;
  for (std::int64_t begin = 0; begin < count; begin += kBlock) {
    const std::int64_t length = std::min(kBlock, count - begin);
    widen_any(from + static_cast<std::size_t>(begin) * dtype_size(from_dtype), from_dtype, block.data(), length);
    narrow_any(block.data(), to + static_cast<std::size_t>(begin) * dtype_size(to_dtype), to_dtype, length);
  }
}

}  // namespace octavo
