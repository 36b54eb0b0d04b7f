// What the memory-bound kernels share: rows cut into vectors of eight elements, roundings, codes, sums over a block.
//
// Such a kernel gives a row to a block, whose threads hold it in registers, a few vectors each. Arithmetic is spelled
// with fmaf and the _rn intrinsics, so that two kernels that say the same compute the same bits.
#pragma once

#include "device/cuda/cuda_launch.h"
#include "tensor/quantized.h"

namespace octavo::ops::cuda {

using BF16 = __nv_bfloat16;
using F16 = __half;

constexpr int kVector = 8;  // elements: 16 bytes of bf16, what a thread moves at a time

/// Rows of a tensor of rank 2 or 3, or broadcast over tokens (token_stride 0); strides in bytes.
struct Rows {
  char* data = nullptr;
  std::int64_t batch_stride = 0, token_stride = 0;
  DType dtype = DType::kF32;

  __host__ __device__ bool defined() const { return data != nullptr; }
  template <typename T = void>
  __device__ T* row(int b, int t) const {
    return reinterpret_cast<T*>(data + b * batch_stride + t * token_stride);
  }
};

/// [B, T, D] or [M, D] (one batch).
inline Rows rows_of(const TensorView& view) {
  Rows rows;
  if (!view.defined()) return rows;
  const auto size = static_cast<std::int64_t>(dtype_size(view.dtype()));
  rows.data = static_cast<char*>(view.data());
  rows.dtype = view.dtype();
  rows.token_stride = view.stride(-2) * size;
  rows.batch_stride = view.rank() == 3 ? view.stride(0) * size : 0;
  return rows;
}
/// A vector for all tokens of a batch row, [B, D], or of all, [D].
inline Rows vectors_of(const TensorView& view) {
  Rows rows;
  if (!view.defined()) return rows;
  rows.data = static_cast<char*>(view.data());
  rows.dtype = view.dtype();
  if (view.rank() == 2) rows.batch_stride = view.stride(0) * static_cast<std::int64_t>(dtype_size(view.dtype()));
  return rows;
}

/// True when every row of a tensor begins where a vector may lie.
inline bool starts_in_vectors(const TensorView& view) {
  const auto size = static_cast<std::int64_t>(dtype_size(view.dtype()));
  const std::int64_t alignment = size * kVector < 16 ? size * kVector : 16;
  bool aligned = reinterpret_cast<std::intptr_t>(view.data()) % alignment == 0;
  for (int axis = 0; axis + 1 < view.rank(); ++axis) {
    aligned = aligned && (view.dim(axis) == 1 || view.stride(axis) * size % alignment == 0);
  }
  return aligned;
}
/// The same, and the rows are whole vectors. True where there is no tensor.
inline bool in_vectors(const TensorView& view) {
  return !view.defined() || (view.dim(-1) % kVector == 0 && starts_in_vectors(view));
}

/// Threads of a block whose row has `width` elements, `per_thread` vectors each; whole warps.
inline int threads_for(std::int64_t width, int per_thread) {
  const std::int64_t elements_per_warp = std::int64_t{32} * per_thread * kVector;
  return static_cast<int>((width + elements_per_warp - 1) / elements_per_warp) * 32;
}

template <typename T>
struct alignas(16) Vector {
  T elements[kVector];
};

__device__ inline float widen(float value) { return value; }
__device__ inline float widen(BF16 value) { return __bfloat162float(value); }
__device__ inline float widen(F16 value) { return __half2float(value); }

template <typename T>
__device__ T narrow(float value);
template <>
__device__ inline float narrow<float>(float value) {
  return value;
}
template <>
__device__ inline BF16 narrow<BF16>(float value) {
  return __float2bfloat16_rn(value);
}
template <>
__device__ inline F16 narrow<F16>(float value) {
  return __float2half_rn(value);
}
__device__ inline float rounded_to_bf16(float value) { return __bfloat162float(__float2bfloat16_rn(value)); }

/// Elements [begin, begin + 8) of a row; zeros from `width` on. `kOnce`: nobody reads them again soon, so they should
/// not push vectors that all rows share out of the caches.
template <bool kAligned, bool kOnce, typename T>
__device__ inline Vector<T> load_vector(const T* row, int begin, int width) {
  Vector<T> vector;
  if constexpr (kAligned) {
    const auto* from = reinterpret_cast<const uint4*>(row + begin);
    auto* to = reinterpret_cast<uint4*>(&vector);
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof(vector) / sizeof(uint4)); ++i)
      to[i] = kOnce ? __ldcs(from + i) : from[i];
  } else {
#pragma unroll
    for (int j = 0; j < kVector; ++j) vector.elements[j] = begin + j < width ? row[begin + j] : narrow<T>(0.0f);
  }
  return vector;
}

template <bool kAligned, bool kOnce, typename T>
__device__ inline void store_vector(T* row, int begin, int width, const Vector<T>& vector) {
  if constexpr (kAligned) {
    auto* to = reinterpret_cast<uint4*>(row + begin);
    const auto* from = reinterpret_cast<const uint4*>(&vector);
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof(vector) / sizeof(uint4)); ++i) {
      if constexpr (kOnce) {
        __stcs(to + i, from[i]);
      } else {
        to[i] = from[i];
      }
    }
  } else {
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      if (begin + j < width) row[begin + j] = vector.elements[j];
    }
  }
}

template <typename T>
__device__ inline void widen_vector(const Vector<T>& vector, float (&values)[kVector]) {
#pragma unroll
  for (int j = 0; j < kVector; ++j) values[j] = widen(vector.elements[j]);
}

template <typename T>
__device__ inline Vector<T> narrow_vector(const float (&values)[kVector]) {
  Vector<T> vector;
#pragma unroll
  for (int j = 0; j < kVector; ++j) vector.elements[j] = narrow<T>(values[j]);
  return vector;
}

/// Elements of a tensor whose type is known at run time only: f32, bf16 or f16.
template <bool kAligned>
__device__ inline void load_floats(const void* row, DType dtype, int begin, int width, float (&values)[kVector]) {
  if (dtype == DType::kF32) {
    widen_vector(load_vector<kAligned, false>(static_cast<const float*>(row), begin, width), values);
  } else if (dtype == DType::kBF16) {
    widen_vector(load_vector<kAligned, false>(static_cast<const BF16*>(row), begin, width), values);
  } else {
    widen_vector(load_vector<kAligned, false>(static_cast<const F16*>(row), begin, width), values);
  }
}
template <bool kAligned>
__device__ inline void store_floats(void* row, DType dtype, int begin, int width, const float (&values)[kVector]) {
  if (dtype == DType::kF32) {
    store_vector<kAligned, false>(static_cast<float*>(row), begin, width, narrow_vector<float>(values));
  } else if (dtype == DType::kBF16) {
    store_vector<kAligned, false>(static_cast<BF16*>(row), begin, width, narrow_vector<BF16>(values));
  } else {
    store_vector<kAligned, false>(static_cast<F16*>(row), begin, width, narrow_vector<F16>(values));
  }
}

// --- Codes of 8 bits; tensor/quantized.h has the formula and says what becomes of NaN. ---

/// float8::encode of tensor/float8.h, for GPUs without the instruction.
template <int kMantissaBits, int kBias, std::uint32_t kLargestCode>
__device__ inline std::uint32_t encode_float8_in_integers(float value) {
  constexpr int kDropped = 23 - kMantissaBits;
  constexpr std::uint32_t kRebias = static_cast<std::uint32_t>(127 - kBias) << kMantissaBits;
  constexpr std::uint32_t kFirstNormal = static_cast<std::uint32_t>(128 - kBias) << 23;
  constexpr std::uint32_t kLargest = (kLargestCode + kRebias) << kDropped;
  constexpr std::uint32_t kAligner = kFirstNormal + (static_cast<std::uint32_t>(kDropped) << 23);
  const std::uint32_t bits = __float_as_uint(value);
  const std::uint32_t magnitude = bits & 0x7FFFFFFFu;
  const std::uint32_t clamped = min(magnitude, kLargest);
  const std::uint32_t normal =
      ((clamped + ((1u << (kDropped - 1)) - 1u) + ((clamped >> kDropped) & 1u)) >> kDropped) - kRebias;
  const std::uint32_t subnormal =
      __float_as_uint(__fadd_rn(__uint_as_float(clamped), __uint_as_float(kAligner))) - kAligner;
  const std::uint32_t code = ((bits >> 24) & 0x80u) | (clamped < kFirstNormal ? subnormal : normal);
  return magnitude > 0x7F800000u ? 0x7Fu : code;
}

__device__ inline std::uint32_t encode_int8(float value) {
  const float number = value == value ? value : 0.0f;
  return static_cast<std::uint32_t>(__float2int_rn(fminf(fmaxf(number, -127.0f), 127.0f))) & 0xFFu;
}

/// Two codes, the first in the lower byte.
__device__ inline std::uint32_t encode_pair(DType format, float first, float second) {
  if (format == DType::kI8) return encode_int8(first) | encode_int8(second) << 8;
#if __CUDA_ARCH__ >= 890
  return __nv_cvt_float2_to_fp8x2(make_float2(first, second), __NV_SATFINITE,
                                  format == DType::kE4M3 ? __NV_E4M3 : __NV_E5M2);
#else
  if (format == DType::kE4M3) {
    return encode_float8_in_integers<3, 7, 0x7E>(first) | encode_float8_in_integers<3, 7, 0x7E>(second) << 8;
  }
  return encode_float8_in_integers<2, 15, 0x7B>(first) | encode_float8_in_integers<2, 15, 0x7B>(second) << 8;
#endif
}

template <bool kAligned>
__device__ inline void store_codes(void* row, DType format, int begin, int width, const float (&values)[kVector],
                                   float reciprocal) {
  std::uint32_t pairs[kVector / 2];
#pragma unroll
  for (int j = 0; j < kVector / 2; ++j) {
    pairs[j] = encode_pair(format, __fmul_rn(values[2 * j], reciprocal), __fmul_rn(values[2 * j + 1], reciprocal));
  }
  auto* codes = static_cast<std::uint8_t*>(row) + begin;
  if constexpr (kAligned) {
    *reinterpret_cast<uint2*>(codes) = make_uint2(pairs[0] | pairs[1] << 16, pairs[2] | pairs[3] << 16);
  } else {
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      if (begin + j < width) codes[j] = static_cast<std::uint8_t>(pairs[j / 2] >> (8 * (j % 2)));
    }
  }
}

/// Magnitudes compare as integers: infinity above all numbers, NaN above infinity.
__device__ inline unsigned magnitude_bits(float value) { return __float_as_uint(value) & 0x7FFFFFFFu; }

__device__ inline float dequant_scale_from(unsigned largest_bits, DType format) {
  if (largest_bits == 0) return 1.0f;
  const float largest = format == DType::kE4M3 ? 448.0f : format == DType::kE5M2 ? 57344.0f : 127.0f;
  const float scale = __fdiv_rn(__uint_as_float(largest_bits), largest);
  constexpr float kSmallest = 0x1p-126f;
  return scale < kSmallest ? kSmallest : scale;
}

// --- Over all threads of a block, the same value and bits in each. `shared` has a place a warp and serves one call.
// ---

__device__ inline float block_sum(float value, float* shared) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, offset);
  const int warps = static_cast<int>(blockDim.x) / 32;
  if (warps == 1) return value;
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = shared[0];
  for (int warp = 1; warp < warps; ++warp) sum += shared[warp];
  return sum;
}

__device__ inline unsigned block_max(unsigned value, unsigned* shared) {
  value = __reduce_max_sync(0xFFFFFFFFu, value);
  const int warps = static_cast<int>(blockDim.x) / 32;
  if (warps == 1) return value;
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  unsigned largest = shared[0];
  for (int warp = 1; warp < warps; ++warp) largest = max(largest, shared[warp]);
  return largest;
}

}  // namespace octavo::ops::cuda
