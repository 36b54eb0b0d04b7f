// quantize on a GPU.
//
// Mapping: a row a block, held in registers between the largest value and the codes. Rows in bf16 of the widths of
//   Large and Medium: groups of four elements (cuda/fixed_rows.cuh). Others: two or four vectors of eight elements a
//   thread.
//   kBlock128: sixteen neighbouring lanes hold the elements of one scale. kTensor: no reduction at all.
// Bytes at [8192, 2432] bf16 to e4m3: 2 in and 1 out an element, 60 MB; 4 FLOPs an element: bound by memory.
// Split columns (rare): a bit a column in shared memory says which elements count as zero.
// Measured on an H100 80GB HBM3 (2026-11-25), where a copy reaches 2.80 TB/s: 23.9 us (2.50 TB/s, 89 % of the copy); at
// [8192, 9728] 83.7 us (2.86 TB/s), with one given scale 84.9 us.
//
#include "ops/cuda/cuda_rows.h"
#include "ops/cuda/elements.cuh"
#include "ops/cuda/fixed_rows.cuh"
#include "ops/quantize/quantize.h"

namespace octavo::ops {
namespace {

using namespace octavo::ops::cuda;  // NOLINT: the helpers of all kernels

constexpr int kMaxThreads = 512;
constexpr int kMaxPerThread = 4;
constexpr std::int64_t kMaxWidth = std::int64_t{kMaxThreads} * kMaxPerThread * kVector;
constexpr int kLanesPerScale = static_cast<int>(kScaleBlock) / kVector;  // of kBlock128

struct CodeArgs {
  Rows x;
  std::uint8_t* codes = nullptr;
  float* scales = nullptr;
  const float* multiplier = nullptr;
  const std::int32_t* outliers = nullptr;
  BF16* outlier_values = nullptr;
  DType format = DType::kE4M3;
  ScaleGrain grain = ScaleGrain::kRow;
  int tokens = 0, width = 0, outlier_count = 0;
};

template <typename X, bool kAligned, int kPerThread>
__global__ void __launch_bounds__(kMaxThreads) quantize_kernel(const __grid_constant__ CodeArgs args) {
  __shared__ unsigned shared[32];
  extern __shared__ unsigned split_bits[];  // a bit a column; there when columns are split
  const auto row = static_cast<std::int64_t>(blockIdx.x);
  const X* x = args.x.row<const X>(static_cast<int>(row / args.tokens), static_cast<int>(row % args.tokens));
  const int width = args.width;
  Vector<X> vectors[kPerThread];
  int begin[kPerThread];
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    begin[i] = static_cast<int>(threadIdx.x + i * blockDim.x) * kVector;
    if (begin[i] < width) vectors[i] = load_vector<kAligned, true>(x, begin[i], width);
  }
  if (args.outlier_count > 0) {
    for (int i = static_cast<int>(threadIdx.x); i < (width + 31) / 32; i += static_cast<int>(blockDim.x)) {
      split_bits[i] = 0;
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < args.outlier_count; i += static_cast<int>(blockDim.x)) {
      const int column = args.outliers[i];
      float value = widen(x[column]);
      if (args.multiplier != nullptr) value = __fmul_rn(value, args.multiplier[column]);
      args.outlier_values[row * args.outlier_count + i] = __float2bfloat16_rn(value);
      atomicOr(&split_bits[column / 32], 1u << (column % 32));
    }
    __syncthreads();
  }
  float values[kPerThread][kVector];
  unsigned largest[kPerThread] = {};
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    if (begin[i] >= width) continue;
    widen_vector(vectors[i], values[i]);
    if (args.multiplier != nullptr) {
      const Vector<float> multiplier = load_vector<kAligned, false>(args.multiplier, begin[i], width);
#pragma unroll
      for (int j = 0; j < kVector; ++j) values[i][j] = __fmul_rn(values[i][j], multiplier.elements[j]);
    }
    if (args.outlier_count > 0) {
      const unsigned split = split_bits[begin[i] / 32] >> (begin[i] % 32);
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        if ((split >> j & 1u) != 0) values[i][j] = 0.0f;
      }
    }
#pragma unroll
    for (int j = 0; j < kVector; ++j) largest[i] = max(largest[i], magnitude_bits(values[i][j]));
  }
  float row_scale = 1.0f;
  if (args.grain == ScaleGrain::kTensor) {
    row_scale = args.scales[0];
  } else if (args.grain == ScaleGrain::kRow) {
    unsigned of_row = largest[0];
#pragma unroll
    for (int i = 1; i < kPerThread; ++i) of_row = max(of_row, largest[i]);
    row_scale = dequant_scale_from(block_max(of_row, shared), args.format);
    if (threadIdx.x == 0) args.scales[row] = row_scale;
  }
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    float scale = row_scale;
    if (args.grain == ScaleGrain::kBlock128) {
#pragma unroll
      for (int offset = kLanesPerScale / 2; offset > 0; offset /= 2) {
        largest[i] = max(largest[i], __shfl_xor_sync(0xFFFFFFFFu, largest[i], offset));
      }
      scale = dequant_scale_from(largest[i], args.format);
      constexpr int kColumns = static_cast<int>(kScaleBlock);
      if (threadIdx.x % kLanesPerScale == 0 && begin[i] < width) {
        args.scales[row * ((width + kColumns - 1) / kColumns) + begin[i] / kColumns] = scale;
      }
    }
    if (begin[i] >= width) continue;
    store_codes<kAligned>(args.codes + row * width, args.format, begin[i], width, values[i], __frcp_rn(scale));
  }
}

/// Of plain rows, with a scale a row or one for all.
template <int kWidth>
__global__ void __launch_bounds__(FixedRow<kWidth>::kThreads, FixedRow<kWidth>::kBlocks)
    quantize_fixed_kernel(const __grid_constant__ CodeArgs args) {
  __shared__ unsigned shared[FixedRow<kWidth>::kWarps];
  const auto row = static_cast<std::int64_t>(blockIdx.x);
  FixedRow<kWidth> x;
  x.load(args.x.row<const BF16>(static_cast<int>(row / args.tokens), static_cast<int>(row % args.tokens)));
  float scale;
  if (args.grain == ScaleGrain::kTensor) {
    scale = args.scales[0];
  } else {
    scale = x.measure(args.format, shared);
    if (threadIdx.x == 0) args.scales[row] = scale;
  }
  x.store_codes(args.format, args.codes + row * kWidth, __frcp_rn(scale));
}

template <int kWidth>
void launch_fixed(ExecutionContext& context, const CodeArgs& codes, std::int64_t rows) {
  quantize_fixed_kernel<kWidth>
      <<<static_cast<unsigned>(rows), FixedRow<kWidth>::kThreads, 0, device::cuda::launch_stream(context)>>>(codes);
  device::cuda::check_launch("quantize");
}

bool launched_fixed(ExecutionContext& context, const CodeArgs& codes, std::int64_t rows) {
  if (codes.multiplier != nullptr || codes.outlier_count > 0 || codes.grain == ScaleGrain::kBlock128) return false;
  switch (codes.width) {
    case 1536:
      launch_fixed<1536>(context, codes, rows);
      return true;
    case 2432:
      launch_fixed<2432>(context, codes, rows);
      return true;
    case 6144:
      launch_fixed<6144>(context, codes, rows);
      return true;
    case 9728:
      launch_fixed<9728>(context, codes, rows);
      return true;
    default:
      return false;
  }
}

bool supports(const QuantizeArgs& args, const DeviceTraits&) { return args.x.dim(-1) <= kMaxWidth; }

template <typename X>
void launch(ExecutionContext& context, const CodeArgs& codes, std::int64_t rows, bool aligned) {
  const bool wide = threads_for(codes.width, 2) > kMaxThreads;
  const auto kernel = wide ? (aligned ? quantize_kernel<X, true, 4> : quantize_kernel<X, false, 4>)
                           : (aligned ? quantize_kernel<X, true, 2> : quantize_kernel<X, false, 2>);
  const std::size_t shared = codes.outlier_count > 0 ? static_cast<std::size_t>(codes.width + 31) / 32 * 4 : 0;
  kernel<<<static_cast<unsigned>(rows), static_cast<unsigned>(threads_for(codes.width, wide ? 4 : 2)), shared,
           device::cuda::launch_stream(context)>>>(codes);
  device::cuda::check_launch("quantize");
}

void quantize_cuda(ExecutionContext& context, const QuantizeArgs& args, void*) {
  CodeArgs codes;
  codes.x = rows_of(args.x);
  codes.codes = static_cast<std::uint8_t*>(args.out.codes.data());
  codes.scales = args.out.dequant_scale.f32();
  if (args.multiplier.defined()) codes.multiplier = args.multiplier.f32();
  if (args.outliers.defined()) {
    codes.outliers = args.outliers.as<std::int32_t>();
    codes.outlier_values = reinterpret_cast<BF16*>(args.outlier_values.as<BFloat16>());
    codes.outlier_count = static_cast<int>(args.outliers.dim(0));
  }
  codes.format = args.out.codes.dtype();
  codes.grain = args.out.grain;
  codes.tokens = static_cast<int>(args.x.dim(-2));
  codes.width = static_cast<int>(args.x.dim(-1));
  const bool aligned = in_vectors(args.x) && in_vectors(args.out.codes) && in_vectors(args.multiplier);
  const std::int64_t rows = args.out.rows();
  if (aligned && args.x.dtype() == DType::kBF16 && launched_fixed(context, codes, rows)) return;
  switch (args.x.dtype()) {
    case DType::kBF16:
      return launch<BF16>(context, codes, rows, aligned);
    case DType::kF16:
      return launch<F16>(context, codes, rows, aligned);
    default:
      return launch<float>(context, codes, rows, aligned);
  }
}

}  // namespace

void add_quantize_cuda_rows() {
  static constexpr KernelRow<QuantizeArgs> kRows[] = {
      {.name = "cuda", .device = DeviceKind::kCuda, .supports = supports, .run = quantize_cuda}};
  quantize_table().add_rows(kRows);
}

}  // namespace octavo::ops
