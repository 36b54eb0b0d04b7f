// qkv_split_norm for heads of 64: 8 lanes hold a head's 64 channels, 16 bytes each, for q, k and v at once (three loads
// in flight a thread), and norm them by three shuffles. A block has two neighbouring heads of 16 tokens: it reads whole
// lines and writes 2 KB a head and part, which DRAM takes better than one token of many heads (2.58 against 2.46 TB/s
// on an H100 80GB HBM3). Memory-bound: 6 bytes read and as many written an element of the stream in f16; a device copy
// reaches 3.0 TB/s.
#include "device/cuda/cuda_launch.h"
#include "ops/attention/cuda/split_heads.h"

namespace octavo::ops {
namespace {

constexpr int kWidth = 64;
constexpr int kLanes = 8;                // of a head
constexpr int kTokens = 16, kHeads = 2;  // of a block
constexpr int kThreads = kTokens * kHeads * kLanes;

struct Part {
  void* data = nullptr;
  const float* weight = nullptr;  // null = no norm
  std::int64_t batch_stride = 0, head_stride = 0, token_stride = 0;
  float factor = 1.0f;
  DType dtype = DType::kBF16;
};

struct SplitParams {
  const __nv_bfloat16* qkv;
  std::int64_t batch_stride, token_stride;
  int tokens, heads;
  float eps;
  Part parts[3];  // in the order of the projection; the last one is v
};

__device__ std::uint32_t bits_of(__nv_bfloat162 pair) { return *reinterpret_cast<std::uint32_t*>(&pair); }
__device__ std::uint32_t bits_of(__half2 pair) { return *reinterpret_cast<std::uint32_t*>(&pair); }
/// A NaN stays one.
__device__ float saturated_f16(float x) { return x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x; }

__device__ void store(const Part& part, std::int64_t offset, const float (&x)[8]) {
  if (part.dtype == DType::kF16) {
    uint4 out;
    std::uint32_t* words = &out.x;
#pragma unroll
    for (int i = 0; i < 4; ++i)
      words[i] = bits_of(__floats2half2_rn(saturated_f16(x[2 * i]), saturated_f16(x[2 * i + 1])));
    *reinterpret_cast<uint4*>(static_cast<__half*>(part.data) + offset) = out;
  } else if (part.dtype == DType::kBF16) {
    uint4 out;
    std::uint32_t* words = &out.x;
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = bits_of(__floats2bfloat162_rn(x[2 * i], x[2 * i + 1]));
    *reinterpret_cast<uint4*>(static_cast<__nv_bfloat16*>(part.data) + offset) = out;
  } else {
    uint2 out;
    std::uint32_t* words = &out.x;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const std::uint32_t low =
          __nv_cvt_float2_to_fp8x2(make_float2(x[4 * i], x[4 * i + 1]), __NV_SATFINITE, __NV_E4M3);
      const std::uint32_t high =
          __nv_cvt_float2_to_fp8x2(make_float2(x[4 * i + 2], x[4 * i + 3]), __NV_SATFINITE, __NV_E4M3);
      words[i] = low | high << 16;
    }
    *reinterpret_cast<uint2*>(static_cast<std::uint8_t*>(part.data) + offset) = out;
  }
}

template <int kParts>
__global__ __launch_bounds__(kThreads) void split_heads_kernel(const __grid_constant__ SplitParams p) {
  const int lane = threadIdx.x % kLanes;
  const int unit = threadIdx.x / kLanes;
  const int block_token = blockIdx.y * kTokens + unit / kHeads, block_head = blockIdx.x * kHeads + unit % kHeads;
  const bool active = block_token < p.tokens && block_head < p.heads;
  const int token = active ? block_token : 0, head = active ? block_head : 0;
  const std::int64_t b = blockIdx.z;
  const __nv_bfloat16* from =
      p.qkv + b * p.batch_stride + token * p.token_stride + head * kWidth + lane * (kWidth / kLanes);
  uint4 raw[kParts];
#pragma unroll
  for (int part = 0; part < kParts; ++part)
    raw[part] = __ldcs(reinterpret_cast<const uint4*>(from + static_cast<std::int64_t>(part) * p.heads * kWidth));
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    const Part& to = p.parts[part + 3 - kParts];
    const std::uint32_t words[4] = {raw[part].x, raw[part].y, raw[part].z, raw[part].w};
    float x[8];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      x[2 * i] = __uint_as_float(words[i] << 16);
      x[2 * i + 1] = __uint_as_float(words[i] & 0xFFFF0000u);
    }
    if (to.weight != nullptr) {
      float squares = 0.0f;
#pragma unroll
      for (int i = 0; i < 8; ++i) squares += x[i] * x[i];
#pragma unroll
      for (int step = 1; step < kLanes; step *= 2) squares += __shfl_xor_sync(0xFFFFFFFFu, squares, step);
      const float scale = rsqrtf(squares * (1.0f / kWidth) + p.eps) * to.factor;
      const float4 w0 = __ldg(reinterpret_cast<const float4*>(to.weight + lane * 8));
      const float4 w1 = __ldg(reinterpret_cast<const float4*>(to.weight + lane * 8 + 4));
      const float w[8] = {w0.x, w0.y, w0.z, w0.w, w1.x, w1.y, w1.z, w1.w};
#pragma unroll
      for (int i = 0; i < 8; ++i) x[i] *= scale * w[i];
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) x[i] *= to.factor;
    }
    if (active)
      store(to, b * to.batch_stride + head * to.head_stride + token * to.token_stride + lane * (kWidth / kLanes), x);
  }
}

bool aligned(const TensorView& view, std::int64_t elements) {
  if (view.stride(3) != 1) return false;
  for (int axis = 0; axis < 3; ++axis) {
    if (view.stride(axis) % elements != 0) return false;
  }
  return reinterpret_cast<std::uintptr_t>(view.data()) %
             (static_cast<std::size_t>(elements) * dtype_size(view.dtype())) ==
         0;
}

Part part_of(const TensorView& view, const TensorView& weight, float factor) {
  if (!view.defined()) return {};
  return {.data = view.data(),
          .weight = weight.defined() ? static_cast<const float*>(weight.data()) : nullptr,
          .batch_stride = view.stride(0),
          .head_stride = view.stride(1),
          .token_stride = view.stride(2),
          .factor = factor,
          .dtype = view.dtype()};
}

}  // namespace

bool split_heads_supports(const QkvSplitNormArgs& args, const DeviceTraits&) {
  const auto writes = [](const TensorView& view) {
    return (view.dtype() == DType::kBF16 || view.dtype() == DType::kF16 || view.dtype() == DType::kE4M3) &&
           aligned(view, 8);
  };
  const auto norms = [](const TensorView& weight) {
    return !weight.defined() ||
           (weight.stride(0) == 1 && reinterpret_cast<std::uintptr_t>(weight.data()) % sizeof(float4) == 0);
  };
  return args.qkv.dtype() == DType::kBF16 && args.k.dim(3) == kWidth && args.qkv.stride(2) == 1 &&
         args.qkv.stride(0) % 8 == 0 && args.qkv.stride(1) % 8 == 0 &&
         reinterpret_cast<std::uintptr_t>(args.qkv.data()) % sizeof(uint4) == 0 &&
         (!args.q.defined() || writes(args.q)) && writes(args.k) && writes(args.v) && norms(args.q_weight) &&
         norms(args.k_weight) && args.k.dim(0) < 65536 && args.k.dim(2) < 65536 * kTokens;
}

void split_heads(ExecutionContext& context, const QkvSplitNormArgs& args, void*) {
  SplitParams params{.qkv = static_cast<const __nv_bfloat16*>(args.qkv.data()),
                     .batch_stride = args.qkv.stride(0),
                     .token_stride = args.qkv.stride(1),
                     .tokens = static_cast<int>(args.k.dim(2)),
                     .heads = static_cast<int>(args.k.dim(1)),
                     .eps = args.eps,
                     .parts = {part_of(args.q, args.q_weight, args.q_factor),
                               part_of(args.k, args.k_weight, args.k_factor), part_of(args.v, TensorView(), 1.0f)}};
  if (params.tokens == 0 || params.heads == 0 || args.k.dim(0) == 0) return;
  const dim3 grid((params.heads + kHeads - 1) / kHeads, (params.tokens + kTokens - 1) / kTokens,
                  static_cast<unsigned>(args.k.dim(0)));
  const cudaStream_t stream = device::cuda::launch_stream(context);
  if (args.q.defined()) {
    split_heads_kernel<3><<<grid, kThreads, 0, stream>>>(params);
  } else {
    split_heads_kernel<2><<<grid, kThreads, 0, stream>>>(params);
  }
  device::cuda::check_launch("split_heads");
}

}  // namespace octavo::ops
