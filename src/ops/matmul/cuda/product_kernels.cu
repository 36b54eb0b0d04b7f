// Mapping. finish: a thread keeps four columns and walks over rows; reads 4 (8 for two parts) and writes 2 or 4 bytes
// an
//   element. convert: a block takes a row, twice where the row's largest element is needed (the second time from
//   cache). widen: a thread takes 16 codes, reads 16 and writes 32 bytes. All are bound by memory.
#include "ops/matmul/cuda/finish.cuh"

namespace octavo::ops {
namespace {

using device::cuda::check_launch;

template <int V>
__global__ void __launch_bounds__(128)
    finish_kernel(SumWork sums, EpilogueWork epilogue, std::int64_t first_row, std::int64_t rows) {
  const int column = (static_cast<int>(blockIdx.x) * 128 + static_cast<int>(threadIdx.x)) * V;
  if (column >= epilogue.width) return;
  float column_scale[V];
#pragma unroll
  for (int i = 0; i < V; ++i) {
    column_scale[i] = sums.column_scale != nullptr ? sums.column_scale[(column + i) * sums.column_scale_stride] : 1.0f;
  }
  for (std::int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    const std::int64_t at = row * sums.stride + column;
    float values[V];
    if (sums.integers) {
      const auto* from = static_cast<const int*>(sums.parts[0]) + at;
#pragma unroll
      for (int i = 0; i < V; ++i) values[i] = static_cast<float>(from[i]);
    } else {
      load_f32<V>(static_cast<const float*>(sums.parts[0]) + at, values);
#pragma unroll
      for (int part = 1; part < SumWork::kMostParts; ++part) {
        if (part >= sums.part_count) break;
        float more[V];
        load_f32<V>(static_cast<const float*>(sums.parts[part]) + at, more);
#pragma unroll
        for (int i = 0; i < V; ++i) values[i] += more[i];
      }
    }
    const float row_scale = sums.row_scale != nullptr ? sums.row_scale[row * sums.row_scale_stride] : 1.0f;
#pragma unroll
    for (int i = 0; i < V; ++i) values[i] *= row_scale * column_scale[i];
    if (sums.extra != nullptr) {
      float more[V];
      load_f32<V>(sums.extra + at, more);
#pragma unroll
      for (int i = 0; i < V; ++i) values[i] += more[i];
    }
    finish<V>(epilogue, first_row + row, column, values);
  }
}

__device__ float element(const void* from, DType dtype, std::int64_t index) {
  switch (dtype) {
    case DType::kF32:
      return static_cast<const float*>(from)[index];
    case DType::kBF16:
      return __bfloat162float(static_cast<const __nv_bfloat16*>(from)[index]);
    case DType::kF16:
      return __half2float(static_cast<const __half*>(from)[index]);
    case DType::kE4M3: {
      __nv_fp8_e4m3 code;
      code.__x = static_cast<const __nv_fp8_storage_t*>(from)[index];
      return static_cast<float>(code);
    }
    case DType::kE5M2: {
      __nv_fp8_e5m2 code;
      code.__x = static_cast<const __nv_fp8_storage_t*>(from)[index];
      return static_cast<float>(code);
    }
    case DType::kI8:
      return static_cast<float>(static_cast<const signed char*>(from)[index]);
    default:
      return 0.0f;
  }
}

__device__ float rounded(float value, float) { return value; }
__device__ __nv_bfloat16 rounded(float value, __nv_bfloat16) { return __float2bfloat16_rn(value); }
__device__ __half rounded(float value, __half) { return __float2half_rn(value); }
__device__ float widened(float value) { return value; }
__device__ float widened(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ float widened(__half value) { return __half2float(value); }

constexpr int kConvertThreads = 256;

template <typename To>
__global__ void __launch_bounds__(kConvertThreads) convert_kernel(ConvertWork work) {
  __shared__ float largest[kConvertThreads / 32];
  const std::int64_t row = blockIdx.x;
  auto* to = static_cast<To*>(work.to) + row * work.to_stride;
  const bool real = row < work.rows;
  const std::int64_t from = real ? row_offset(work.from_rows, work.first_row + row) : 0;
  const auto value_at = [&](std::int64_t k) {
    float value = element(work.from, work.from_dtype, from + k);
    if (work.scale != nullptr) {
      value *= work.scale[(work.first_row + row) * work.scale_row_stride +
                          k / ConvertWork::kBlock * work.scale_block_stride];
    }
    return value;
  };
  float multiplier = 1.0f;
  if (work.row_scale != nullptr) {
    float most = 0.0f;
    if (real) {
      for (std::int64_t k = threadIdx.x; k < work.inner; k += kConvertThreads) most = fmaxf(most, fabsf(value_at(k)));
    }
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, lane));
    if (threadIdx.x % 32 == 0) largest[threadIdx.x / 32] = most;
    __syncthreads();
    for (int warp = 0; warp < kConvertThreads / 32; ++warp) most = fmaxf(most, largest[warp]);
    int exponent = 0;
    if (most > 0.0f && most < INFINITY) {
      frexpf(most, &exponent);
      exponent = min(max(14 - exponent, -100), 100);
    }
    multiplier = ldexpf(1.0f, exponent);
    if (threadIdx.x == 0) work.row_scale[row] = ldexpf(1.0f, -exponent);
  }
  for (std::int64_t k = threadIdx.x; k < work.to_stride; k += kConvertThreads) {
    const float value = real && k < work.inner ? value_at(k) * multiplier : 0.0f;
    const To kept = rounded(value, To());
    to[k] = kept;
    // Infinity leaves nothing over; infinity minus itself would be NaN.
    if (work.rest_offset != 0) {
      to[work.rest_offset + k] = rounded(isfinite(widened(kept)) ? value - widened(kept) : 0.0f, To());
    }
  }
}

/// Four codes, in the order of their bytes, as two pairs of f16.
template <DType kFormat>
__device__ inline void widen_four(unsigned codes, __half2 (&pairs)[2]) {
  if constexpr (kFormat == DType::kI8) {
    const unsigned biased = codes ^ 0x80808080u;  // 0 to 255; 0x64xx is 1024 + xx in f16
    const unsigned low = __byte_perm(biased, 0x64646464u, 0x4140), high = __byte_perm(biased, 0x64646464u, 0x4342);
    const __half2 zero = __float2half2_rn(1152.0f);
    pairs[0] = __hsub2(*reinterpret_cast<const __half2*>(&low), zero);
    pairs[1] = __hsub2(*reinterpret_cast<const __half2*>(&high), zero);
  } else {
    constexpr auto format = kFormat == DType::kE4M3 ? __NV_E4M3 : __NV_E5M2;
    pairs[0] = __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(codes & 0xffffu), format);
    pairs[1] = __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(codes >> 16), format);
  }
}

template <DType kFormat, bool kToF16>
__global__ void __launch_bounds__(256) widen_kernel(const unsigned char* codes, std::uint16_t* to, std::int64_t count) {
  const std::int64_t at = (static_cast<std::int64_t>(blockIdx.x) * 256 + threadIdx.x) * 16;
  if (at >= count) return;
  unsigned four[4];
  if (at + 16 <= count) {
    *reinterpret_cast<uint4*>(four) = __ldcs(reinterpret_cast<const uint4*>(codes + at));
  } else {
    for (int i = 0; i < 4; ++i) {
      four[i] = 0;
      for (int j = 0; j < 4; ++j) {
        const std::int64_t k = at + 4 * i + j;
        if (k < count) four[i] |= static_cast<unsigned>(codes[k]) << (8 * j);
      }
    }
  }
  __align__(16) unsigned wide[8];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    __half2 pairs[2];
    widen_four<kFormat>(four[i], pairs);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      if constexpr (kToF16) {
        wide[2 * i + j] = *reinterpret_cast<const unsigned*>(&pairs[j]);
      } else {
        const float2 values = __half22float2(pairs[j]);
        const __nv_bfloat162 pair = __floats2bfloat162_rn(values.x, values.y);
        wide[2 * i + j] = *reinterpret_cast<const unsigned*>(&pair);
      }
    }
  }
  if (at + 16 <= count) {
    auto* out = reinterpret_cast<uint4*>(to + at);
    out[0] = *reinterpret_cast<const uint4*>(wide);
    out[1] = *reinterpret_cast<const uint4*>(wide + 4);
  } else {
    for (int i = 0; at + i < count; ++i) to[at + i] = static_cast<std::uint16_t>(wide[i / 2] >> (16 * (i % 2)));
  }
}

__global__ void scale_vector_kernel(const float* from, int from_stride, const float* by, float* to,
                                    std::int64_t count) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) to[i] = from[i * from_stride] * (by != nullptr ? *by : 1.0f);
}

}  // namespace

void finish_rows(cudaStream_t stream, int multiprocessors, const SumWork& sums, const EpilogueWork& epilogue,
                 std::int64_t first_row, std::int64_t rows) {
  const int columns = epilogue.in_fours ? 4 : 1;
  const auto blocks_across = static_cast<unsigned>((epilogue.width + 128 * columns - 1) / (128 * columns));
  constexpr std::int64_t kBlocksPerMultiprocessor = 32;
  const std::int64_t wanted = (multiprocessors * kBlocksPerMultiprocessor + blocks_across - 1) / blocks_across;
  const auto blocks_down = static_cast<unsigned>(rows < wanted ? rows : wanted);
  const dim3 grid(blocks_across, blocks_down);
  if (columns == 4) {
    finish_kernel<4><<<grid, 128, 0, stream>>>(sums, epilogue, first_row, rows);
  } else {
    finish_kernel<1><<<grid, 128, 0, stream>>>(sums, epilogue, first_row, rows);
  }
  check_launch("finish_rows");
}

void convert_rows(cudaStream_t stream, const ConvertWork& work) {
  const auto blocks = static_cast<unsigned>(work.padded_rows > work.rows ? work.padded_rows : work.rows);
  if (work.to_dtype == DType::kF32) {
    convert_kernel<float><<<blocks, kConvertThreads, 0, stream>>>(work);
  } else if (work.to_dtype == DType::kF16) {
    convert_kernel<__half><<<blocks, kConvertThreads, 0, stream>>>(work);
  } else {
    convert_kernel<__nv_bfloat16><<<blocks, kConvertThreads, 0, stream>>>(work);
  }
  check_launch("convert_rows");
}

void widen_codes(cudaStream_t stream, const void* codes, DType format, void* to, DType to_dtype, std::int64_t count) {
  const auto blocks = static_cast<unsigned>((count + 4095) / 4096);
  const auto* from = static_cast<const unsigned char*>(codes);
  auto* wide = static_cast<std::uint16_t*>(to);
  const bool f16 = to_dtype == DType::kF16;
  const auto launch = [&](auto kernel) { kernel<<<blocks, 256, 0, stream>>>(from, wide, count); };
  if (format == DType::kI8) {
    f16 ? launch(widen_kernel<DType::kI8, true>) : launch(widen_kernel<DType::kI8, false>);
  } else if (format == DType::kE4M3) {
    f16 ? launch(widen_kernel<DType::kE4M3, true>) : launch(widen_kernel<DType::kE4M3, false>);
  } else {
    f16 ? launch(widen_kernel<DType::kE5M2, true>) : launch(widen_kernel<DType::kE5M2, false>);
  }
  check_launch("widen_codes");
}

void fill_with(cudaStream_t stream, const float* value, float* to, std::int64_t count) {
  scale_vector(stream, value, 0, nullptr, to, count);
}

void scale_vector(cudaStream_t stream, const float* from, int from_stride, const float* by, float* to,
                  std::int64_t count) {
  scale_vector_kernel<<<static_cast<unsigned>((count + 255) / 256), 256, 0, stream>>>(from, from_stride, by, to, count);
  check_launch("scale_vector");
}

}  // namespace octavo::ops
