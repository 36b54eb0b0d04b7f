// Mapping: a block of threads takes kRows x kColumns pixels; it brings them and their neighbours into shared memory,
// some
//   channels at a time, and multiplies 16 pixels x 16 channels by 16 channels x 8 outputs on the tensor cores
//   (mma.sync), a warp a row. Several blocks share a multiprocessor: one loads while others multiply. Bound by memory:
//   x is read once from DRAM, 0.09 ms for 1024^2 pixels of 128 channels.
#include "device/cuda/cuda_launch.h"
#include "ops/conv2d/cuda/conv2d_narrow.h"

namespace octavo::ops {
namespace {

constexpr int kRows = 8, kColumns = 32;  // of out; a warp a row
constexpr int kThreads = kRows * 32;
constexpr int kOutputs = 8;
constexpr int kTaps = 9;
constexpr int kPixels = (kRows + 2) * (kColumns + 2);

struct Problem {
  const __nv_bfloat16* x;
  const __nv_bfloat16* taps;
  const void* bias;
  const void* residual;
  void* out;
  int height, width, channels;  // of x
  int out_height, out_width, out_channels;
  int pad_rows, pad_columns;
  bool bias_bf16, out_bf16;
};

template <int kChannels>
struct Shared {
  static constexpr int kPitch = kChannels + 8;  // elements of a pixel: eight pixels side by side meet different banks
  alignas(16) __nv_bfloat16 pixels[kPixels * kPitch];
  // As the lanes of mma.sync hold them: two pairs of channels a lane.
  alignas(16) std::uint32_t taps[kTaps * (kChannels / 16) * 32 * 2];
};

__device__ void load_async(void* shared, const void* global, bool inside) {
  const auto to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(global), "r"(inside ? 16 : 0));
}

__device__ float read(const void* values, std::int64_t at, bool bf16) {
  return bf16 ? __bfloat162float(static_cast<const __nv_bfloat16*>(values)[at]) : static_cast<const float*>(values)[at];
}

/// Blocks: (columns, rows, batch) of tiles.
template <int kChannels>
__global__ void __launch_bounds__(kThreads) narrow(Problem p) {
  extern __shared__ char memory[];
  auto& shared = *reinterpret_cast<Shared<kChannels>*>(memory);
  constexpr int kPitch = Shared<kChannels>::kPitch, kSteps = kChannels / 16;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int first_row = blockIdx.y * kRows, first_column = blockIdx.x * kColumns;
  const __nv_bfloat16* x = p.x + static_cast<std::int64_t>(blockIdx.z) * p.height * p.width * p.channels;
  float sums[kColumns / 16][4] = {};
  for (int channel = 0; channel < p.channels; channel += kChannels) {
    __syncthreads();
    constexpr int kPieces = kChannels / 8;  // 16 bytes each
    for (int i = threadIdx.x; i < kPixels * kPieces; i += kThreads) {
      const int pixel = i / kPieces, piece = i % kPieces;
      const int row = first_row + pixel / (kColumns + 2) - p.pad_rows;
      const int column = first_column + pixel % (kColumns + 2) - p.pad_columns;
      const bool inside = row >= 0 && row < p.height && column >= 0 && column < p.width;
      const std::int64_t at = inside ? static_cast<std::int64_t>(row) * p.width + column : 0;
      load_async(&shared.pixels[pixel * kPitch + piece * 8], x + at * p.channels + channel + piece * 8, inside);
    }
    for (int i = threadIdx.x; i < kTaps * kSteps * 32; i += kThreads) {
      const int output = i % 32 / 4, pair = i % 4 * 2, step = i / 32 % kSteps, tap = i / 32 / kSteps;
      const __nv_bfloat16* from =
          p.taps + (static_cast<std::int64_t>(output) * kTaps + tap) * p.channels + channel + step * 16 + pair;
      shared.taps[i * 2] = *reinterpret_cast<const std::uint32_t*>(from);
      shared.taps[i * 2 + 1] = *reinterpret_cast<const std::uint32_t*>(from + 8);
    }
    asm volatile("cp.async.wait_all;\n" ::);
    __syncthreads();
#pragma unroll
    for (int tap = 0; tap < kTaps; ++tap) {
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        const uint2 b = *reinterpret_cast<const uint2*>(&shared.taps[((tap * kSteps + step) * 32 + lane) * 2]);
#pragma unroll
        for (int tile = 0; tile < kColumns / 16; ++tile) {
          const int pixel = (warp + tap / 3) * (kColumns + 2) + tile * 16 + tap % 3 + lane % 16;
          const auto from = static_cast<unsigned>(
              __cvta_generic_to_shared(&shared.pixels[pixel * kPitch + step * 16 + lane / 16 * 8]));
          unsigned a0, a1, a2, a3;
          asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                       : "=r"(a0), "=r"(a1), "=r"(a2), "=r"(a3)
                       : "r"(from));
          asm volatile(
              "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
              "{%0,%1,%2,%3};\n"
              : "+f"(sums[tile][0]), "+f"(sums[tile][1]), "+f"(sums[tile][2]), "+f"(sums[tile][3])
              : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b.x), "r"(b.y));
        }
      }
    }
  }
  const int row = first_row + warp;
  if (row >= p.out_height) return;
#pragma unroll
  for (int tile = 0; tile < kColumns / 16; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int column = first_column + tile * 16 + lane / 4 + i / 2 * 8, output = lane % 4 * 2 + i % 2;
      if (column >= p.out_width || output >= p.out_channels) continue;
      const std::int64_t at =
          ((static_cast<std::int64_t>(blockIdx.z) * p.out_height + row) * p.out_width + column) * p.out_channels +
          output;
      float value = sums[tile][i];
      if (p.bias != nullptr) value += read(p.bias, output, p.bias_bf16);
      if (p.residual != nullptr) value += read(p.residual, at, p.out_bf16);
      if (p.out_bf16) {
        static_cast<__nv_bfloat16*>(p.out)[at] = __float2bfloat16_rn(value);
      } else {
        static_cast<float*>(p.out)[at] = value;
      }
    }
  }
}

template <int kChannels>
void launch(ExecutionContext& context, const Problem& problem, std::int64_t batch) {
  constexpr std::size_t kBytes = sizeof(Shared<kChannels>);
  static const cudaError_t allowed =
      cudaFuncSetAttribute(narrow<kChannels>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kBytes));
  device::cuda::check(allowed, "cudaFuncSetAttribute");
  const dim3 grid((problem.out_width + kColumns - 1) / kColumns, (problem.out_height + kRows - 1) / kRows,
                  static_cast<unsigned>(batch));
  narrow<kChannels><<<grid, kThreads, kBytes, device::cuda::launch_stream(context)>>>(problem);
  device::cuda::check_launch("conv2d narrow");
}

}  // namespace

bool conv2d_narrow_fits(const Conv2dArgs& args) {
  return args.x.dtype() == DType::kBF16 && args.weight.plain.dim(2) == 3 && args.stride == 1 && !args.upsample &&
         args.out.dim(3) <= kOutputs && args.x.dim(3) % 32 == 0;
}

void conv2d_narrow(ExecutionContext& context, const Conv2dArgs& args, const void* taps) {
  const ConvRows rows = conv_rows(args);
  const Problem problem{.x = static_cast<const __nv_bfloat16*>(args.x.data()),
                        .taps = static_cast<const __nv_bfloat16*>(taps),
                        .bias = args.bias.data(),
                        .residual = args.residual.data(),
                        .out = args.out.data(),
                        .height = static_cast<int>(args.x.dim(1)),
                        .width = static_cast<int>(args.x.dim(2)),
                        .channels = static_cast<int>(args.x.dim(3)),
                        .out_height = static_cast<int>(args.out.dim(1)),
                        .out_width = static_cast<int>(args.out.dim(2)),
                        .out_channels = static_cast<int>(args.out.dim(3)),
                        .pad_rows = rows.pad_before,
                        .pad_columns = args.pad_before,
                        .bias_bf16 = args.bias.dtype() == DType::kBF16,
                        .out_bf16 = args.out.dtype() == DType::kBF16};
  if (problem.channels % 64 == 0) {
    launch<64>(context, problem, args.x.dim(0));
  } else {
    launch<32>(context, problem, args.x.dim(0));
  }
}

}  // namespace octavo::ops
