// A product of up to 64 rows with a weight that is read once, as it lies in memory: codes of 8 bits or 16-bit floats.
//
// The weight is the row operand of mma.m16n8k16, x the column operand. Codes are widened to f16 (exact) in registers.
// x comes as f16 with a second part of what rounding to f16 left over, so that f32 x keeps 22 bits. (For a bf16 weight
// both are bf16.)
//
// Mapping: a block takes 128 rows of the weight. Its 8 warps are 4 groups of 32 rows times 2 halves of K: half h takes
//   every second chunk of 64. Weights and x go through a ring of stages by cp.async. A thread copies the weights that
//   it multiplies itself, 16 bytes at a time; which k they stand for in the fragments of a chunk is free as long as x
//   agrees: with codes, thread t of a quad holds k = 16 t to 16 t + 15; with 16-bit weights 8 t and 32 + 8 t on. x
//   lies in shared memory in rows of a chunk, its 16-byte pieces swapped in odd rows so that eight readers meet no
//   bank twice. The halves' sums meet in shared memory, in fixed order, and the epilogue writes rows of out.
// Bytes: N K of weights once, 4 M K of x for each block (from L2). FLOPs 4 M N K (two parts).
#include <type_traits>

#include "ops/matmul/cuda/finish.cuh"

namespace octavo::ops {
namespace {

using device::cuda::check;
using device::cuda::check_launch;

constexpr int kThreads = 256;
constexpr int kBlockRows = 128;  // of the weight
constexpr int kChunk = kFewRowsInner;
constexpr int kHalves = 2;
constexpr int kMostStages = 4;
constexpr int kSumStride = kBlockRows + 4;  // floats; keeps a quad's writes on different banks

template <DType kWeight>
struct Form {
  static constexpr bool kCodes = kWeight == DType::kI8 || kWeight == DType::kE4M3 || kWeight == DType::kE5M2;
  static constexpr bool kBF16 = kWeight == DType::kBF16;
  static constexpr int kPieces = kCodes ? 1 : 2;  // of 16 bytes that a thread holds of a weight's row in a chunk
  static constexpr int kWeightBytes = kThreads * 4 * kPieces * 16;
};
constexpr int x_stage_bytes(int tiles) { return kHalves * 2 * tiles * 8 * kChunk * 2; }
template <DType kWeight>
constexpr int stage_bytes(int tiles) {
  return Form<kWeight>::kWeightBytes + x_stage_bytes(tiles);
}

__device__ inline void copy_async(void* to, const void* from) {
  const auto shared = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(shared), "l"(from));
}
__device__ inline void commit() { asm volatile("cp.async.commit_group;\n"); }
/// Until at most `pending` of the latest groups are on their way.
__device__ inline void wait(int pending) {
  if (pending == 0) {
    asm volatile("cp.async.wait_group 0;\n");
  } else if (pending == 1) {
    asm volatile("cp.async.wait_group 1;\n");
  } else {
    asm volatile("cp.async.wait_group 2;\n");
  }
}

template <bool kBF16>
__device__ inline void multiply(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  if constexpr (kBF16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

/// Four codes as two pairs of f16.
template <DType kWeight>
__device__ inline void widen_four(unsigned codes, unsigned& low, unsigned& high) {
  if constexpr (kWeight == DType::kI8) {
    const unsigned biased = codes ^ 0x80808080u;  // 0 to 255; 0x64xx is 1024 + xx in f16
    const unsigned l = __byte_perm(biased, 0x64646464u, 0x4140), h = __byte_perm(biased, 0x64646464u, 0x4342);
    const __half2 zero = __float2half2_rn(1152.0f);
    const __half2 lw = __hsub2(*reinterpret_cast<const __half2*>(&l), zero);
    const __half2 hw = __hsub2(*reinterpret_cast<const __half2*>(&h), zero);
    low = *reinterpret_cast<const unsigned*>(&lw);
    high = *reinterpret_cast<const unsigned*>(&hw);
  } else if constexpr (kWeight == DType::kE5M2) {  // the upper byte of an f16
    low = __byte_perm(codes, 0u, 0x1404);
    high = __byte_perm(codes, 0u, 0x3424);
  } else {
    const __half2_raw l = __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(codes & 0xffffu), __NV_E4M3);
    const __half2_raw h = __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(codes >> 16), __NV_E4M3);
    low = static_cast<unsigned>(l.x) | static_cast<unsigned>(l.y) << 16;
    high = static_cast<unsigned>(h.x) | static_cast<unsigned>(h.y) << 16;
  }
}

/// kTiles: tokens in eights; those past work.rows are zeros in x.
template <DType kWeight, int kTiles>
__global__ void __launch_bounds__(kThreads, 1) few_rows_kernel(FewRowsWork work, EpilogueWork epilogue, int stages) {
  using F = Form<kWeight>;
  extern __shared__ __align__(128) unsigned char memory[];
  constexpr int kStageBytes = stage_bytes<kWeight>(kTiles);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int group = warp % 4, half = warp / 4;
  const int quad = lane / 4, t = lane % 4;
  const int chunks = work.inner / kChunk;
  const int steps = (chunks + kHalves - 1) / kHalves;
  const int first_weight_row = static_cast<int>(blockIdx.x) * kBlockRows;
  constexpr int kElement = F::kCodes ? 1 : 2;

  const unsigned char* weight_rows[4];  // m-tile i / 2, row quad + 8 (i % 2)
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    int row = first_weight_row + group * 32 + i / 2 * 16 + i % 2 * 8 + quad;
    row = min(row, work.width - 1);  // what is past the end is computed and not written
    weight_rows[i] =
        static_cast<const unsigned char*>(work.weight) + static_cast<std::int64_t>(row) * work.inner * kElement;
  }
  const auto* x = static_cast<const std::uint16_t*>(work.x);
  const auto fetch = [&](int step) {
    unsigned char* stage = memory + step % stages * kStageBytes;
    const int chunk = step * kHalves + half;
    if (chunk < chunks) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int piece = 0; piece < F::kPieces; ++piece) {
          const int k = F::kCodes ? t * 16 : (piece * 32 + t * 8) * 2;  // bytes
          copy_async(stage + ((i * F::kPieces + piece) * kThreads + static_cast<int>(threadIdx.x)) * 16,
                     weight_rows[i] + static_cast<std::int64_t>(chunk) * kChunk * kElement + k);
        }
      }
    }
    // x: [half][part][token][64], 8 pieces of 16 bytes a token.
    constexpr int kTokens = kTiles * 8;
    unsigned char* x_stage = stage + F::kWeightBytes;
    const int piece = static_cast<int>(threadIdx.x) % 8;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const int row = i * (kThreads / 8) + static_cast<int>(threadIdx.x) / 8;
      const int token = row % kTokens, part = row / kTokens % 2, of = row / (2 * kTokens);
      const int x_chunk = step * kHalves + of;
      if (x_chunk >= chunks) continue;
      const int place = piece ^ ((token & 1) * (F::kCodes ? 1 : 4));
      copy_async(x_stage + (row * 8 + place) * 16,
                 x + (static_cast<std::int64_t>(part) * kFewRows + token) * work.inner + x_chunk * kChunk + piece * 8);
    }
  };

  float sums[2][kTiles][4] = {};
  for (int step = 0; step < stages - 1; ++step) {
    if (step < steps) fetch(step);
    commit();
  }
  for (int step = 0; step < steps; ++step) {
    wait(stages - 2);
    __syncthreads();
    if (step + stages - 1 < steps) fetch(step + stages - 1);
    commit();
    if (step * kHalves + half >= chunks) continue;
    const unsigned char* stage = memory + step % stages * kStageBytes;
    const unsigned char* x_stage = stage + F::kWeightBytes + half * 2 * kTiles * 8 * 128;
    uint4 held[4];
    if constexpr (F::kCodes) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        held[i] = *reinterpret_cast<const uint4*>(stage + (i * kThreads + static_cast<int>(threadIdx.x)) * 16);
      }
    }
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {  // of two steps of 16 k
      unsigned a[2][2][4];                  // [m-tile][step of the pair]
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if constexpr (F::kCodes) {
          const unsigned first = pair == 0 ? held[i].x : held[i].z, second = pair == 0 ? held[i].y : held[i].w;
          widen_four<kWeight>(first, a[i / 2][0][i % 2], a[i / 2][0][i % 2 + 2]);
          widen_four<kWeight>(second, a[i / 2][1][i % 2], a[i / 2][1][i % 2 + 2]);
        } else {
          const uint4 piece = *reinterpret_cast<const uint4*>(
              stage + ((i * F::kPieces + pair) * kThreads + static_cast<int>(threadIdx.x)) * 16);
          a[i / 2][0][i % 2] = piece.x, a[i / 2][0][i % 2 + 2] = piece.y;
          a[i / 2][1][i % 2] = piece.z, a[i / 2][1][i % 2 + 2] = piece.w;
        }
      }
      const int piece = F::kCodes ? t * 2 + pair : pair * 4 + t;
      const int place = piece ^ ((quad & 1) * (F::kCodes ? 1 : 4));
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        uint4 b[kTiles];
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          b[tile] = *reinterpret_cast<const uint4*>(x_stage + ((part * kTiles * 8 + tile * 8 + quad) * 8 + place) * 16);
        }
        // Sums of all tiles in turn: none waits for the one before it.
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          multiply<F::kBF16>(sums[0][tile], a[0][0], b[tile].x, b[tile].y);
          multiply<F::kBF16>(sums[1][tile], a[1][0], b[tile].x, b[tile].y);
        }
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          multiply<F::kBF16>(sums[0][tile], a[0][1], b[tile].z, b[tile].w);
          multiply<F::kBF16>(sums[1][tile], a[1][1], b[tile].z, b[tile].w);
        }
      }
    }
  }
  wait(0);
  __syncthreads();
  auto* shared_sums = reinterpret_cast<float*>(memory);  // [token][kSumStride]
  for (int turn = kHalves - 1; turn >= 0; --turn) {
    if (half == turn) {
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            float* at = shared_sums + (tile * 8 + t * 2 + i % 2) * kSumStride + group * 32 + m * 16 + i / 2 * 8 + quad;
            *at = turn == kHalves - 1 ? sums[m][tile][i] : *at + sums[m][tile][i];
          }
        }
      }
    }
    __syncthreads();
  }
  const auto write = [&](auto in_fours) {
    constexpr int V = decltype(in_fours)::value ? 4 : 1;
    for (int i = threadIdx.x; i < work.rows * (kBlockRows / V); i += kThreads) {
      const int token = i / (kBlockRows / V), place = i % (kBlockRows / V) * V;
      const int column = first_weight_row + place;
      if (column >= work.width) continue;
      float values[V];
      load_f32<V>(shared_sums + token * kSumStride + place, values);
      const float row_scale = work.row_scale != nullptr ? work.row_scale[token] : 1.0f;
#pragma unroll
      for (int j = 0; j < V; ++j) {
        values[j] *= row_scale *
                     (work.column_scale != nullptr ? work.column_scale[(column + j) * work.column_scale_stride] : 1.0f);
      }
      finish<V>(epilogue, work.first_row + token, column, values);
    }
  };
  if (epilogue.in_fours) {
    write(std::true_type());
  } else {
    write(std::false_type());
  }
}

template <DType kWeight, int kTiles>
void launch(cudaStream_t stream, const FewRowsWork& work, const EpilogueWork& epilogue) {
  constexpr int kStageBytes = stage_bytes<kWeight>(kTiles);
  static_assert(2 * kStageBytes >= kTiles * 8 * kSumStride * 4);
  const auto kernel = few_rows_kernel<kWeight, kTiles>;
  static const int stages = [kernel] {  // as many as a block of this GPU holds: 227 KiB on sm_90, 163 on 80, 99 on 89
    int gpu = 0, most = 0;
    check(cudaGetDevice(&gpu), "cudaGetDevice");
    check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, gpu), "cudaDeviceGetAttribute");
    const int fitting = most / kStageBytes < kMostStages ? most / kStageBytes : kMostStages;
    OCTAVO_CHECK(fitting >= 2, "few rows need two stages, a block of this GPU has {} bytes", most);
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, fitting * kStageBytes),
          "cudaFuncSetAttribute");
    return fitting;
  }();
  const auto blocks = static_cast<unsigned>((work.width + kBlockRows - 1) / kBlockRows);
  kernel<<<blocks, kThreads, stages * kStageBytes, stream>>>(work, epilogue, stages);
  check_launch("few_rows");
}

template <DType kWeight>
void launch_for_rows(cudaStream_t stream, const FewRowsWork& work, const EpilogueWork& epilogue) {
  switch (few_rows_padded(work.rows)) {
    case 16:
      return launch<kWeight, 2>(stream, work, epilogue);
    case 32:
      return launch<kWeight, 4>(stream, work, epilogue);
    case 56:
      return launch<kWeight, 7>(stream, work, epilogue);
    default:
      return launch<kWeight, 8>(stream, work, epilogue);
  }
}

}  // namespace

void multiply_few_rows(cudaStream_t stream, const FewRowsWork& work, const EpilogueWork& epilogue) {
  switch (work.weight_dtype) {
    case DType::kI8:
      return launch_for_rows<DType::kI8>(stream, work, epilogue);
    case DType::kE4M3:
      return launch_for_rows<DType::kE4M3>(stream, work, epilogue);
    case DType::kE5M2:
      return launch_for_rows<DType::kE5M2>(stream, work, epilogue);
    case DType::kF16:
      return launch_for_rows<DType::kF16>(stream, work, epilogue);
    default:
      return launch_for_rows<DType::kBF16>(stream, work, epilogue);
  }
}

}  // namespace octavo::ops
