// The epilogue of a product on elements in registers.
#pragma once

#include "device/cuda/cuda_launch.h"
#include "ops/activation/cuda/activate.cuh"
#include "ops/cuda/elements.cuh"
#include "ops/matmul/cuda/product_kernels.h"

namespace octavo::ops {

__device__ inline std::int64_t row_offset(const RowLayout& layout, std::int64_t row) {
  const auto r = static_cast<unsigned>(row);
  const auto group = static_cast<unsigned>(layout.group);
  return static_cast<std::int64_t>(r / group) * layout.group_stride +
         static_cast<std::int64_t>(r % group) * layout.row_stride;
}

template <int V>
__device__ inline void load_f32(const float* from, float (&values)[V]) {
  if constexpr (V == 4) {
    const float4 four = *reinterpret_cast<const float4*>(from);
    values[0] = four.x, values[1] = four.y, values[2] = four.z, values[3] = four.w;
  } else {
    values[0] = *from;
  }
}

template <int V>
__device__ inline void load_f32_or_bf16(const void* from, std::int64_t index, bool is_f32, float (&values)[V]) {
  if (is_f32) return load_f32<V>(static_cast<const float*>(from) + index, values);
  const auto* bits = static_cast<const __nv_bfloat16*>(from) + index;
  if constexpr (V == 4) {
    const uint2 four = *reinterpret_cast<const uint2*>(bits);
    values[0] = __uint_as_float(four.x << 16), values[1] = __uint_as_float(four.x & 0xffff0000u);
    values[2] = __uint_as_float(four.y << 16), values[3] = __uint_as_float(four.y & 0xffff0000u);
  } else {
    values[0] = __bfloat162float(*bits);
  }
}

/// out[row, column...] = residual + gate * activation(values + bias), or the code of that times quant_scale.
template <int V>
__device__ inline void finish(const EpilogueWork& e, std::int64_t row, int column, float (&values)[V]) {
  float other[V];
  if (e.bias != nullptr) {
    load_f32_or_bf16<V>(e.bias, column, e.bias_is_f32, other);
#pragma unroll
    for (int i = 0; i < V; ++i) values[i] += other[i];
  }
  if (e.activation != Activation::kNone) {
#pragma unroll
    for (int i = 0; i < V; ++i) values[i] = cuda::activate(e.activation, values[i]);
  }
  if (e.gate != nullptr) {
    const unsigned group = static_cast<unsigned>(row) / static_cast<unsigned>(e.rows_per_gate);
    load_f32<V>(e.gate + group * e.gate_stride + column, other);
#pragma unroll
    for (int i = 0; i < V; ++i) values[i] *= other[i];
  }
  if (e.residual != nullptr) {
    load_f32_or_bf16<V>(e.residual, row_offset(e.residual_rows, row) + column, e.out_dtype == DType::kF32, other);
#pragma unroll
    for (int i = 0; i < V; ++i) values[i] += other[i];
  }
  const std::int64_t at = row_offset(e.out_rows, row) + column;
  if (e.out_dtype == DType::kF32) {
    auto* to = static_cast<float*>(e.out) + at;
    if constexpr (V == 4) {
      *reinterpret_cast<float4*>(to) = make_float4(values[0], values[1], values[2], values[3]);
    } else {
      *to = values[0];
    }
  } else if (e.out_dtype == DType::kE4M3) {
    auto* to = static_cast<std::uint8_t*>(e.out) + at;
    const float by = *e.quant_scale;
    if constexpr (V == 4) {
      const std::uint32_t low = cuda::encode_pair(DType::kE4M3, __fmul_rn(values[0], by), __fmul_rn(values[1], by));
      const std::uint32_t high = cuda::encode_pair(DType::kE4M3, __fmul_rn(values[2], by), __fmul_rn(values[3], by));
      *reinterpret_cast<std::uint32_t*>(to) = low | high << 16;
    } else {
      *to = static_cast<std::uint8_t>(cuda::encode_pair(DType::kE4M3, __fmul_rn(values[0], by), 0.0f));
    }
  } else {
    auto* to = static_cast<__nv_bfloat16*>(e.out) + at;
    if constexpr (V == 4) {
      const __nv_bfloat162 low = __floats2bfloat162_rn(values[0], values[1]);
      const __nv_bfloat162 high = __floats2bfloat162_rn(values[2], values[3]);
      uint2 four;
      four.x = *reinterpret_cast<const unsigned*>(&low);
      four.y = *reinterpret_cast<const unsigned*>(&high);
      *reinterpret_cast<uint2*>(to) = four;
    } else {
      *to = __float2bfloat16_rn(values[0]);
    }
  }
}

}  // namespace octavo::ops
