// GroupNorm on the GPU, channels last: measure, join, apply, alone or as one op.
//
// Mapping: measure: a block of threads takes kBlockPixels pixels of 8 vectors of channels; the values stay in registers
//   between the sum and the sum of squared deviations, so that memory is read once. join: a block of threads a group.
//   apply: a thread keeps the coefficients of its channels and goes over pixels. The picture is read twice and written
//   once: at 1024^2 pixels x 128 channels in bf16 0.8 GB.
// Determinism: the order of every sum follows from the picture's size alone, and per channel not from the vector's
//   width: bands give the bits of the whole picture.
#include <type_traits>

#include "device/cuda/cuda_launch.h"
#include "device/execution_context.h"
#include "ops/cuda/cuda_rows.h"
#include "ops/group_norm/group_norm.h"
#include "ops/group_norm/group_norm_bands.h"

namespace octavo::ops {
namespace {

using device::cuda::check_launch;
using device::cuda::launch_stream;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kVectors = 8;                                           // of channels side by side in a block of threads
constexpr int kPixelLanes = kThreads / kVectors;                      // pixels side by side
constexpr int kSteps = static_cast<int>(kBlockPixels) / kPixelLanes;  // pixels of a thread, one after another

__device__ float widen(float value) { return value; }
__device__ float widen(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ void narrow(float value, float& to) { to = value; }
__device__ void narrow(float value, __nv_bfloat16& to) { to = __float2bfloat16_rn(value); }

/// Neighbouring channels, read and written at once.
template <typename T, int kWidth>
struct alignas(sizeof(T) * kWidth) Vector {
  T values[kWidth];
};

/// sums[i] of the block's pixel lanes of this thread's vector, in every thread of the vector. The order is fixed.
template <int kWidth>
__device__ void add_lanes(float (&sums)[kWidth], float* shared) {
  const int vector = threadIdx.x % kVectors, warp = threadIdx.x / 32;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], 8);
    sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], 16);
  }
  __syncthreads();
  if (threadIdx.x % 32 < kVectors) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) shared[(warp * kWidth + i) * kVectors + vector] = sums[i];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += shared[(w * kWidth + i) * kVectors + vector];
    sums[i] = sum;
  }
}

/// Blocks: (channels / (8 vectors), pixels / kBlockPixels, batch).
template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads, 3)
    measure(const T* x, float* statistics, int pixels, int channels, std::int64_t statistics_stride) {
  static_assert(kVectors == 8, "the lanes of a warp are added by two shuffles");
  __shared__ float shared[kWarps * kVectors * kWidth];
  const int channel = (blockIdx.x * kVectors + threadIdx.x % kVectors) * kWidth;
  // From the end on, which the kernel before has written last and the cache may still hold; apply begins at the front.
  const int block = static_cast<int>(gridDim.y - 1 - blockIdx.y);
  const int first = block * static_cast<int>(kBlockPixels);
  const int count = min(static_cast<int>(kBlockPixels), pixels - first);
  const bool inside = channel < channels;
  const T* from = x + (static_cast<std::int64_t>(blockIdx.z) * pixels + first) * channels + channel;
  Vector<T, kWidth> values[kSteps];
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const int pixel = step * kPixelLanes + threadIdx.x / kVectors;
    values[step] = {};
    if (inside && pixel < count) {
      values[step] = *reinterpret_cast<const Vector<T, kWidth>*>(from + static_cast<std::int64_t>(pixel) * channels);
    }
  }
  float means[kWidth] = {};
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) means[i] += widen(values[step].values[i]);
  }
  add_lanes(means, shared);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) means[i] /= static_cast<float>(count);
  float squares[kWidth] = {};
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const bool present = step * kPixelLanes + static_cast<int>(threadIdx.x) / kVectors < count;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const float difference = present ? widen(values[step].values[i]) - means[i] : 0.0f;
      squares[i] = fmaf(difference, difference, squares[i]);
    }
  }
  add_lanes(squares, shared);
  if (threadIdx.x < kVectors && inside) {
    float* to = statistics + blockIdx.z * statistics_stride + static_cast<std::int64_t>(block) * 2 * channels;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      to[channel + i] = means[i];
      to[channels + channel + i] = squares[i];
    }
  }
}

constexpr int kJoinThreads = 1024;

template <typename T>
__device__ T add_block(T sum, T* shared) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = shared[threadIdx.x % 32];
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  return sum;
}

/// Blocks: (groups, batch). The mean of all channels and blocks first, in double (a mean may be large beside the
/// deviations), then the squares around it.
__global__ void __launch_bounds__(kJoinThreads)
    join(const float* statistics, const float* weight, float* coefficients, int pixels, int channels, float eps) {
  __shared__ double double_sums[kJoinThreads / 32];
  __shared__ float sums[kJoinThreads / 32];
  const int group_channels = channels / gridDim.x, first_channel = blockIdx.x * group_channels;
  const int blocks = (pixels + static_cast<int>(kBlockPixels) - 1) / static_cast<int>(kBlockPixels);
  const int items = blocks * group_channels;
  statistics += static_cast<std::int64_t>(blockIdx.y) * blocks * 2 * channels + first_channel;
  coefficients += static_cast<std::int64_t>(blockIdx.y) * 2 * channels + first_channel;
  const auto at = [&](int item) {
    return statistics + static_cast<std::int64_t>(item / group_channels) * 2 * channels + item % group_channels;
  };
  const auto pixels_of = [&](int item) {
    return static_cast<float>(
        min(static_cast<int>(kBlockPixels), pixels - item / group_channels * static_cast<int>(kBlockPixels)));
  };
  const double count = static_cast<double>(pixels) * group_channels;
  double sum = 0;
#pragma unroll 4
  for (int item = threadIdx.x; item < items; item += kJoinThreads) {
    sum += static_cast<double>(*at(item)) * static_cast<double>(pixels_of(item));
  }
  const double mean = add_block(sum, double_sums) / count;
  float squares = 0;
#pragma unroll 4
  for (int item = threadIdx.x; item < items; item += kJoinThreads) {
    const float* block = at(item);
    const float difference = static_cast<float>(static_cast<double>(block[0]) - mean);
    squares += fmaf(difference * difference, pixels_of(item), block[channels]);
  }
  const double variance = static_cast<double>(add_block(squares, sums)) / count;
  const float inverse = static_cast<float>(1.0 / sqrt(variance + static_cast<double>(eps)));
  for (int c = threadIdx.x; c < group_channels; c += kJoinThreads) {
    coefficients[c] = static_cast<float>(mean);
    coefficients[channels + c] = weight[first_channel + c] * inverse;
  }
}

/// Blocks: (enough, batch). The number of threads of a picture is a multiple of the vectors of a pixel, so that a
/// thread's channels are the same in every step.
template <typename In, typename Out, int kWidth>
__global__ void __launch_bounds__(kThreads) apply(const In* x, Out* out, const float* coefficients, const float* bias,
                                                  std::int64_t vectors, int channels, bool silu) {
  constexpr int kAtOnce = 4;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
  std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int channel = static_cast<int>(at % (channels / kWidth)) * kWidth;
  coefficients += static_cast<std::int64_t>(blockIdx.y) * 2 * channels;
  const std::int64_t picture = static_cast<std::int64_t>(blockIdx.y) * vectors;
  const auto* from = reinterpret_cast<const Vector<In, kWidth>*>(x) + picture;
  auto* to = reinterpret_cast<Vector<Out, kWidth>*>(out) + picture;
  float means[kWidth], factors[kWidth], shifts[kWidth];
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    means[i] = coefficients[channel + i];
    factors[i] = coefficients[channels + channel + i];
    shifts[i] = bias[channel + i];
  }
  for (; at < vectors; at += kAtOnce * stride) {
    Vector<In, kWidth> values[kAtOnce];
#pragma unroll
    for (int step = 0; step < kAtOnce; ++step) {
      if (at + step * stride < vectors) values[step] = from[at + step * stride];
    }
#pragma unroll
    for (int step = 0; step < kAtOnce; ++step) {
      if (at + step * stride >= vectors) break;
      Vector<Out, kWidth> result;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        float value = fmaf(widen(values[step].values[i]) - means[i], factors[i], shifts[i]);
        // x e^x / (1 + e^x) would overflow; __fdividef gives 0 for a divisor that is infinite, as it should be.
        if (silu) value = __fdividef(value, 1.0f + __expf(-value));
        narrow(value, result.values[i]);
      }
      to[at + step * stride] = result;
    }
  }
}

int pixels_of(const TensorView& x) { return static_cast<int>(x.dim(1) * x.dim(2)); }

/// Channels that one vector of at most 16 bytes holds on both sides.
int vector_width(const TensorView& x, const TensorView* out) {
  const auto whole = [](const TensorView& view, std::int64_t width) {
    const std::int64_t bytes = width * static_cast<std::int64_t>(dtype_size(view.dtype()));
    return view.dim(3) % width == 0 && reinterpret_cast<std::uintptr_t>(view.data()) % bytes == 0;
  };
  const std::int64_t widest = x.dtype() == DType::kF32 || (out != nullptr && out->dtype() == DType::kF32) ? 4 : 8;
  return static_cast<int>(whole(x, widest) && (out == nullptr || whole(*out, widest)) ? widest : 1);
}

void launch_measure(ExecutionContext& context, const TensorView& x, float* statistics) {
  const int pixels = pixels_of(x), channels = static_cast<int>(x.dim(3));
  const auto launch = [&](auto element, auto width) {
    using T = decltype(element);
    constexpr int kWidth = decltype(width)::value;
    const int vectors = (channels + kWidth - 1) / kWidth;
    const std::int64_t blocks = group_norm_blocks(pixels);
    const dim3 grid((vectors + kVectors - 1) / kVectors, static_cast<unsigned>(blocks),
                    static_cast<unsigned>(x.dim(0)));
    measure<T, kWidth><<<grid, kThreads, 0, launch_stream(context)>>>(static_cast<const T*>(x.data()), statistics,
                                                                      pixels, channels, blocks * 2 * channels);
  };
  const int width = vector_width(x, nullptr);
  if (x.dtype() == DType::kBF16) {
    width == 8 ? launch(__nv_bfloat16{}, std::integral_constant<int, 8>())
               : launch(__nv_bfloat16{}, std::integral_constant<int, 1>());
  } else {
    width == 4 ? launch(float{}, std::integral_constant<int, 4>()) : launch(float{}, std::integral_constant<int, 1>());
  }
  check_launch("group_norm measure");
}

void launch_join(ExecutionContext& context, const float* statistics, const float* weight, float* coefficients,
                 std::int64_t batch, int pixels, int channels, int groups, float eps) {
  const dim3 grid(static_cast<unsigned>(groups), static_cast<unsigned>(batch));
  join<<<grid, kJoinThreads, 0, launch_stream(context)>>>(statistics, weight, coefficients, pixels, channels, eps);
  check_launch("group_norm join");
}

void launch_apply(ExecutionContext& context, const TensorView& x, const TensorView& out, const float* coefficients,
                  const float* bias, bool silu) {
  const int channels = static_cast<int>(x.dim(3));
  const auto launch = [&](auto in, auto result, auto width) {
    using In = decltype(in);
    using Out = decltype(result);
    constexpr int kWidth = decltype(width)::value;
    const std::int64_t vectors = static_cast<std::int64_t>(pixels_of(x)) * channels / kWidth;
    const std::int64_t per_pixel = channels / kWidth;
    // Whole turns of blocks whose threads are a multiple of a pixel's vectors.
    std::int64_t unit = per_pixel;
    while (unit % 2 == 0 && unit * kThreads / 2 % per_pixel == 0) unit /= 2;
    constexpr std::int64_t kBlocksEach = 24;  // of a multiprocessor: several turns, so that the last costs little
    const std::int64_t enough = (vectors + kThreads - 1) / kThreads;
    const std::int64_t wanted = device::cuda::multiprocessors_of(context) * kBlocksEach;
    const std::int64_t blocks = ((enough < wanted ? enough : wanted) + unit - 1) / unit * unit;
    const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(x.dim(0)));
    apply<In, Out, kWidth><<<grid, kThreads, 0, launch_stream(context)>>>(
        static_cast<const In*>(x.data()), static_cast<Out*>(out.data()), coefficients, bias, vectors, channels, silu);
  };
  const auto with_width = [&](auto in, auto result) {
    constexpr int kWidest = sizeof(in) == 4 || sizeof(result) == 4 ? 4 : 8;
    vector_width(x, &out) > 1 ? launch(in, result, std::integral_constant<int, kWidest>())
                              : launch(in, result, std::integral_constant<int, 1>());
  };
  const bool x_bf16 = x.dtype() == DType::kBF16, out_bf16 = out.dtype() == DType::kBF16;
  if (x_bf16) {
    out_bf16 ? with_width(__nv_bfloat16{}, __nv_bfloat16{}) : with_width(__nv_bfloat16{}, float{});
  } else {
    out_bf16 ? with_width(float{}, __nv_bfloat16{}) : with_width(float{}, float{});
  }
  check_launch("group_norm apply");
}

std::size_t statistics_bytes(const GroupNormArgs& args) {
  const std::int64_t floats = args.x.dim(0) * group_norm_blocks(pixels_of(args.x)) * 2 * args.x.dim(3);
  return (static_cast<std::size_t>(floats) * sizeof(float) + 255) / 256 * 256;
}

std::size_t group_norm_scratch_bytes(const GroupNormArgs& args, const DeviceTraits&) {
  return statistics_bytes(args) + static_cast<std::size_t>(args.x.dim(0) * 2 * args.x.dim(3)) * sizeof(float);
}

void group_norm_cuda(ExecutionContext& context, const GroupNormArgs& args, void* scratch) {
  auto* statistics = static_cast<float*>(scratch);
  auto* coefficients = reinterpret_cast<float*>(static_cast<std::byte*>(scratch) + statistics_bytes(args));
  launch_measure(context, args.x, statistics);
  launch_join(context, statistics, args.weight.f32(), coefficients, args.x.dim(0), pixels_of(args.x),
              static_cast<int>(args.x.dim(3)), args.groups, args.eps);
  launch_apply(context, args.x, args.out, coefficients, args.bias.f32(), args.silu);
}

void measure_cuda(ExecutionContext& context, const GroupNormMeasureArgs& args, void*) {
  launch_measure(context, args.x, args.statistics.f32() + args.first_pixel / kBlockPixels * 2 * args.statistics.dim(2));
}

void join_cuda(ExecutionContext& context, const GroupNormJoinArgs& args, void*) {
  launch_join(context, args.statistics.f32(), args.weight.f32(), args.coefficients.f32(), 1,
              static_cast<int>(args.pixels), static_cast<int>(args.statistics.dim(2)), args.groups, args.eps);
}

void apply_cuda(ExecutionContext& context, const GroupNormApplyArgs& args, void*) {
  launch_apply(context, args.x, args.out, args.coefficients.f32(), args.bias.f32(), args.silu);
}

}  // namespace

void add_group_norm_cuda_rows() {
  static const KernelRow<GroupNormArgs> whole[] = {
      {.name = "cuda", .device = DeviceKind::kCuda, .scratch_bytes = group_norm_scratch_bytes, .run = group_norm_cuda}};
  static const KernelRow<GroupNormMeasureArgs> measures[] = {
      {.name = "cuda", .device = DeviceKind::kCuda, .run = measure_cuda}};
  static const KernelRow<GroupNormJoinArgs> joins[] = {{.name = "cuda", .device = DeviceKind::kCuda, .run = join_cuda}};
  static const KernelRow<GroupNormApplyArgs> applies[] = {
      {.name = "cuda", .device = DeviceKind::kCuda, .run = apply_cuda}};
  group_norm_table().add_rows(whole);
  group_norm_measure_table().add_rows(measures);
  group_norm_join_table().add_rows(joins);
  group_norm_apply_table().add_rows(applies);
}

}  // namespace octavo::ops
