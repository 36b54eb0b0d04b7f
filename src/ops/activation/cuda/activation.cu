// activation on a GPU.
//
// Mapping: a row a block, four vectors of eight elements a thread, held in registers, so that a coded output knows its
//   largest value before it is written. Rows that are not coded may be any length: more blocks share one.
// Bytes at [8192, 9728] (fc1's output, GELU, to e4m3): 2 in and 1 out an element: 239 MB; 25 FLOPs an element, of which
//   an exponential and a division. Measured on an H100 80GB HBM3 (2026-11-25), where a copy reaches 2.80 TB/s: 108.8 us
//   (2.20 TB/s, 79 % of the copy): instructions weigh as much as memory; in place in bf16 109.7 us (2.91 TB/s).
#include <algorithm>

#include "ops/activation/activation.h"
#include "ops/activation/cuda/activate.cuh"
#include "ops/cuda/cuda_rows.h"
#include "ops/cuda/elements.cuh"

namespace octavo::ops {
namespace {

using namespace octavo::ops::cuda;  // NOLINT: the helpers of all kernels

constexpr int kPerThread = 4;
constexpr int kMaxThreads = 512;
constexpr std::int64_t kMaxCodedWidth = std::int64_t{kMaxThreads} * kPerThread * kVector;

struct ElementArgs {
  Rows x, multiplier, out;
  float* scales = nullptr;  // of codes; a row each
  Activation kind = Activation::kNone;
  int tokens = 0, width = 0;
};

/// The choice is made once for eight elements.
__device__ inline void activate_vector(Activation kind, float (&values)[kVector]) {
  if (kind == Activation::kNone) return;
  if (kind == Activation::kGeluTanh) {
#pragma unroll
    for (int j = 0; j < kVector; ++j) values[j] = activate(Activation::kGeluTanh, values[j]);
    return;
  }
#pragma unroll
  for (int j = 0; j < kVector; ++j) values[j] = activate(kind, values[j]);
}

template <typename X, bool kAligned>
__global__ void __launch_bounds__(kMaxThreads) activation_kernel(const __grid_constant__ ElementArgs args) {
  __shared__ unsigned shared[32];
  const int b = static_cast<int>(blockIdx.x) / args.tokens;
  const int t = static_cast<int>(blockIdx.x) % args.tokens;
  const X* row = args.x.row<const X>(b, t);
  Vector<X> x[kPerThread];
  int begin[kPerThread];
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    begin[i] = static_cast<int>(threadIdx.x + (blockIdx.y * kPerThread + i) * blockDim.x) * kVector;
    if (begin[i] < args.width) x[i] = load_vector<kAligned, true>(row, begin[i], args.width);
  }
  const bool coded = args.scales != nullptr;
  float values[kPerThread][kVector];
  unsigned largest = 0;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    if (begin[i] >= args.width) continue;
    widen_vector(x[i], values[i]);
    activate_vector(args.kind, values[i]);
    if (args.multiplier.defined()) {
      float factor[kVector];
      load_floats<kAligned>(args.multiplier.row(b, t), args.multiplier.dtype, begin[i], args.width, factor);
#pragma unroll
      for (int j = 0; j < kVector; ++j) values[i][j] = __fmul_rn(values[i][j], factor[j]);
    }
    if (!coded) {
      store_floats<kAligned>(args.out.row(b, t), args.out.dtype, begin[i], args.width, values[i]);
      continue;
    }
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      values[i][j] = rounded_to_bf16(values[i][j]);
      if (kAligned || begin[i] + j < args.width) largest = max(largest, magnitude_bits(values[i][j]));
    }
  }
  if (!coded) return;
  const float scale = dequant_scale_from(block_max(largest, shared), args.out.dtype);
  if (threadIdx.x == 0) args.scales[blockIdx.x] = scale;
  const float reciprocal = __frcp_rn(scale);
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    if (begin[i] < args.width) {
      store_codes<kAligned>(args.out.row(b, t), args.out.dtype, begin[i], args.width, values[i], reciprocal);
    }
  }
}

bool supports(const ActivationArgs& args, const DeviceTraits&) {
  return !is_quantized(args.out.dtype()) || args.x.dim(-1) <= kMaxCodedWidth;
}

template <typename X>
void launch(ExecutionContext& context, const ElementArgs& elements, std::int64_t rows, bool aligned) {
  const int threads = std::min(threads_for(elements.width, kPerThread), kMaxThreads);
  const int per_block = threads * kPerThread * kVector;
  const dim3 grid(static_cast<unsigned>(rows), static_cast<unsigned>((elements.width + per_block - 1) / per_block));
  const auto kernel = aligned ? activation_kernel<X, true> : activation_kernel<X, false>;
  kernel<<<grid, static_cast<unsigned>(threads), 0, device::cuda::launch_stream(context)>>>(elements);
  device::cuda::check_launch("activation");
}

void activation_cuda(ExecutionContext& context, const ActivationArgs& args, void*) {
  if (args.x.element_count() == 0) return;
  ElementArgs elements;
  elements.x = rows_of(args.x);
  elements.multiplier = rows_of(args.multiplier);
  elements.out = rows_of(args.out);
  if (args.out_dequant_scale.defined()) elements.scales = args.out_dequant_scale.f32();
  elements.kind = args.activation;
  elements.tokens = static_cast<int>(args.x.dim(-2));
  elements.width = static_cast<int>(args.x.dim(-1));
  const std::int64_t rows = args.x.element_count() / args.x.dim(-1);
  const bool aligned = in_vectors(args.x) && in_vectors(args.multiplier) && in_vectors(args.out);
  if (args.x.dtype() == DType::kBF16) {
    launch<BF16>(context, elements, rows, aligned);
  } else {
    launch<float>(context, elements, rows, aligned);
  }
}

}  // namespace

void add_activation_cuda_rows() {
  static constexpr KernelRow<ActivationArgs> kRows[] = {
      {.name = "cuda", .device = DeviceKind::kCuda, .supports = supports, .run = activation_cuda}};
  activation_table().add_rows(kRows);
}

}  // namespace octavo::ops
