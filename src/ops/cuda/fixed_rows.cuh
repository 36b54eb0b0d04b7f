// Rows in bf16 of a width that is known when this is compiled: those of the models that run as products in 8 bits.
//
// A row is held by a block, in groups of four elements a lane: then f32 vectors that ride along (gates, modulations)
// are 16 bytes a lane without bank conflicts, and only the last group has a bound to test, so that all loads of a row
// are in flight together. Values stay in pairs: half the registers, and half the comparisons on the way to codes. On an
// H100 (2026-11-25) five warps of four groups were the best cut of 2432: one warp of 19 groups, and 19 warps of one,
// took 7 % and 20 % longer; several rows a block with the modulations in registers gained nothing.
#pragma once

#include "ops/cuda/elements.cuh"

namespace octavo::ops::cuda {

constexpr int kGroup = 4;  // elements

using Pair = __nv_bfloat162;

template <int kWidth>
struct FixedRow {
  static_assert(kWidth % kGroup == 0);
  static constexpr int kGroups = kWidth > 4096 ? 8 : 4;  // a lane
  static constexpr int kWarps = (kWidth + 32 * kGroups * kGroup - 1) / (32 * kGroups * kGroup);
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kBlocks = (kWarps < 4 ? 36 : 40) / kWarps;  // on a multiprocessor: 48 or 56 registers a thread

  Pair pairs[kGroups][2];

  static __device__ int begin(int group) { return (group * kThreads + static_cast<int>(threadIdx.x)) * kGroup; }
  static __device__ bool has(int group) { return (group + 1) * kThreads * kGroup <= kWidth || begin(group) < kWidth; }

  /// Past the first-level cache, which keeps what rows share.
  __device__ void load(const BF16* row) {
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      if (has(g)) *reinterpret_cast<uint2*>(pairs[g]) = __ldcs(reinterpret_cast<const uint2*>(row + begin(g)));
    }
  }
  __device__ void store(BF16* row) const {
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      if (has(g)) *reinterpret_cast<uint2*>(row + begin(g)) = *reinterpret_cast<const uint2*>(pairs[g]);
    }
  }
  /// The four elements of a group.
  __device__ float4 values(int group) const {
    const float2 low = __bfloat1622float2(pairs[group][0]), high = __bfloat1622float2(pairs[group][1]);
    return make_float4(low.x, low.y, high.x, high.y);
  }
  __device__ void set(int group, float4 values) {
    pairs[group][0] = __floats2bfloat162_rn(values.x, values.y);
    pairs[group][1] = __floats2bfloat162_rn(values.z, values.w);
  }
  /// term(value, so far) over the row, the same in every thread; four chains of additions a lane.
  template <typename Term>
  __device__ float sum(const Term& term, float* shared) const {
    float4 sums = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      if (!has(g)) continue;
      const float4 value = values(g);
      sums = make_float4(term(value.x, sums.x), term(value.y, sums.y), term(value.z, sums.z), term(value.w, sums.w));
    }
    float sum = __fadd_rn(__fadd_rn(sums.x, sums.y), __fadd_rn(sums.z, sums.w));
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, offset);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = shared[0];
#pragma unroll
    for (int warp = 1; warp < kWarps; ++warp) sum += shared[warp];
    return sum;
  }
  /// The scale of the row's codes.
  __device__ float measure(DType format, unsigned* shared) const {
    Pair largest = __floats2bfloat162_rn(0.0f, 0.0f);
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      if (has(g)) largest = __hmax2_nan(largest, __hmax2_nan(__habs2(pairs[g][0]), __habs2(pairs[g][1])));
    }
    unsigned bits = max(magnitude_bits(__low2float(largest)), magnitude_bits(__high2float(largest)));
    bits = __reduce_max_sync(0xFFFFFFFFu, bits);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = bits;
    __syncthreads();
    bits = shared[0];
#pragma unroll
    for (int warp = 1; warp < kWarps; ++warp) bits = max(bits, shared[warp]);
    return dequant_scale_from(bits, format);
  }
  __device__ void store_codes(DType format, std::uint8_t* row, float reciprocal) const {
    if (format == DType::kE4M3) {
      store_codes_as<DType::kE4M3>(row, reciprocal);
    } else if (format == DType::kE5M2) {
      store_codes_as<DType::kE5M2>(row, reciprocal);
    } else {
      store_codes_as<DType::kI8>(row, reciprocal);
    }
  }

 private:
  template <DType kFormat>
  __device__ void store_codes_as(std::uint8_t* row, float reciprocal) const {
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      if (!has(g)) continue;
      const float4 value = values(g);
      const std::uint32_t low = encode_pair(kFormat, __fmul_rn(value.x, reciprocal), __fmul_rn(value.y, reciprocal));
      const std::uint32_t high = encode_pair(kFormat, __fmul_rn(value.z, reciprocal), __fmul_rn(value.w, reciprocal));
      *reinterpret_cast<std::uint32_t*>(row + begin(g)) = low | high << 16;
    }
  }
};

}  // namespace octavo::ops::cuda
