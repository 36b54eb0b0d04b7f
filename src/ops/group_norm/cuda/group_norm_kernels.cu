// GroupNorm on the GPU, channels last: measure, join, apply, alone or as one op.
//
// Mapping: measure: a block of threads takes kBlockPixels pixels of 16 vectors of channels and adds, in one pass, what
//   lies off the block's first pixel and its square: sums of small numbers, whatever the mean. join: a block of threads
//   a group. apply: a thread keeps the coefficients of its channels and goes over pixels. The picture is read twice and
//   written once: at 1024^2 pixels x 128 channels in bf16 0.8 GB.
// Determinism: the order of every sum follows from the picture's size and its channels alone: bands give the bits of
// the
//   whole picture.
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
constexpr int kVectors = 16;                      // of channels side by side in a block of threads
constexpr int kPixelLanes = kThreads / kVectors;  // pixels side by side
constexpr int kAtOnce = 4;                        // loads of a thread in flight

__device__ float widen(float value) { return value; }
__device__ float widen(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ void narrow(float value, float& to) { to = value; }
__device__ void narrow(float value, __nv_bfloat16& to) { to = __float2bfloat16_rn(value); }

/// Neighbouring channels, read and written at once.
template <typename T, int kWidth>
struct alignas(sizeof(T) * kWidth) Vector {
  T values[kWidth];
};

/// Blocks: (channels / (16 vectors), pixels / kBlockPixels, batch).
template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads, 4)
    measure(const T* x, float* statistics, int pixels, int channels, std::int64_t statistics_stride) {
  static_assert(kVectors * 2 == 32, "the pixels of a warp are added by one shuffle");
  constexpr int kChannels = kVectors * kWidth;
  __shared__ float shared[2][kWarps][kChannels];
  const int vector = threadIdx.x % kVectors, lane = threadIdx.x / kVectors;
  const int first_channel = blockIdx.x * kChannels, channel = first_channel + vector * kWidth;
  // From the end on, which the kernel before has written last and the cache may still hold; apply begins at the front.
  const int block = static_cast<int>(gridDim.y - 1 - blockIdx.y);
  const int first = block * static_cast<int>(kBlockPixels);
  const int count = min(static_cast<int>(kBlockPixels), pixels - first);
  const bool inside = channel < channels;
  const T* from = x + (static_cast<std::int64_t>(blockIdx.z) * pixels + first) * channels + channel;
  Vector<T, kWidth> origin{};
  if (inside) origin = *reinterpret_cast<const Vector<T, kWidth>*>(from);
  float sums[kWidth] = {}, squares[kWidth] = {};
  constexpr int kSteps = static_cast<int>(kBlockPixels) / kPixelLanes;
#pragma unroll
  for (int begin = 0; begin < kSteps; begin += kAtOnce) {
    Vector<T, kWidth> values[kAtOnce];
#pragma unroll
    for (int step = 0; step < kAtOnce; ++step) {
      const int pixel = (begin + step) * kPixelLanes + lane;
      values[step] = origin;  // adds nothing
      if (inside && pixel < count) {
        values[step] = *reinterpret_cast<const Vector<T, kWidth>*>(from + static_cast<std::int64_t>(pixel) * channels);
      }
    }
#pragma unroll
    for (int step = 0; step < kAtOnce; ++step) {
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float difference = widen(values[step].values[i]) - widen(origin.values[i]);
        sums[i] += difference;
        squares[i] = fmaf(difference, difference, squares[i]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], kVectors);
    squares[i] += __shfl_xor_sync(0xffffffffu, squares[i], kVectors);
    if (threadIdx.x % 32 < kVectors) {
      shared[0][threadIdx.x / 32][vector * kWidth + i] = sums[i];
      shared[1][threadIdx.x / 32][vector * kWidth + i] = squares[i];
    }
  }
  __syncthreads();
  const int own = threadIdx.x, at = first_channel + own;
  if (own < kChannels && at < channels) {
    float sum = 0, square = 0;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) {
      sum += shared[0][warp][own];
      square += shared[1][warp][own];
    }
    const float pixel_count = static_cast<float>(count);
    const float offset = widen(x[(static_cast<std::int64_t>(blockIdx.z) * pixels + first) * channels + at]);
    float* to = statistics + blockIdx.z * statistics_stride + static_cast<std::int64_t>(block) * 2 * channels;
    to[at] = offset + sum / pixel_count;
    to[channels + at] = fmaxf(fmaf(-sum / pixel_count, sum, square), 0.0f);
  }
}

constexpr int kJoinThreads = 1024;

/// Of all threads, in every thread.
__device__ double add_block(double sum, double* shared) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = shared[threadIdx.x % 32];
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  return sum;
}

/// Blocks: (groups, batch). In double, in which the mean's square may be taken off: one pass. kWidth channels of a
/// group, which divide it, are read at once.
template <int kWidth>
__global__ void __launch_bounds__(kJoinThreads)
    join(const float* statistics, const float* weight, float* coefficients, int pixels, int channels, float eps) {
  __shared__ double shared[2][kJoinThreads / 32];
  const int group_channels = channels / gridDim.x, first_channel = blockIdx.x * group_channels;
  const int group_vectors = group_channels / kWidth;
  const int blocks = (pixels + static_cast<int>(kBlockPixels) - 1) / static_cast<int>(kBlockPixels);
  statistics += static_cast<std::int64_t>(blockIdx.y) * blocks * 2 * channels + first_channel;
  coefficients += static_cast<std::int64_t>(blockIdx.y) * 2 * channels + first_channel;
  double sum = 0, squares = 0;
#pragma unroll 4
  for (int item = threadIdx.x; item < blocks * group_vectors; item += kJoinThreads) {
    const int block = item / group_vectors;
    const float* from = statistics + static_cast<std::int64_t>(block) * 2 * channels + item % group_vectors * kWidth;
    const auto means = *reinterpret_cast<const Vector<float, kWidth>*>(from);
    const auto deviations = *reinterpret_cast<const Vector<float, kWidth>*>(from + channels);
    const int left = pixels - block * static_cast<int>(kBlockPixels);
    const double count = min(static_cast<int>(kBlockPixels), left);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const double weighted = count * static_cast<double>(means.values[i]);
      sum += weighted;
      squares += static_cast<double>(deviations.values[i]) + weighted * static_cast<double>(means.values[i]);
    }
  }
  const double count = static_cast<double>(pixels) * group_channels;
  const double mean = add_block(sum, shared[0]) / count;
  const double variance = fmax(add_block(squares, shared[1]) / count - mean * mean, 0.0);
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
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
  std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int channel = static_cast<int>(at % (channels / kWidth)) * kWidth;
  coefficients += static_cast<std::int64_t>(blockIdx.y) * 2 * channels;
  const std::int64_t picture = static_cast<std::int64_t>(blockIdx.y) * vectors;
  const auto* from = reinterpret_cast<const Vector<In, kWidth>*>(x) + picture;
  auto* to = reinterpret_cast<Vector<Out, kWidth>*>(out) + picture;
  using Floats = Vector < float, kWidth<4 ? kWidth : 4>;
  constexpr int kFloats = kWidth < 4 ? kWidth : 4;
  Floats means[kWidth / kFloats], factors[kWidth / kFloats], shifts[kWidth / kFloats];
#pragma unroll
  for (int i = 0; i < kWidth / kFloats; ++i) {
    means[i] = reinterpret_cast<const Floats*>(coefficients + channel)[i];
    factors[i] = reinterpret_cast<const Floats*>(coefficients + channels + channel)[i];
    shifts[i] = reinterpret_cast<const Floats*>(bias + channel)[i];
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
        const int part = i / kFloats, k = i % kFloats;
        float value = fmaf(widen(values[step].values[i]) - means[part].values[k], factors[part].values[k],
                           shifts[part].values[k]);
        // x e^x / (1 + e^x) would overflow; __fdividef gives 0 for a divisor that is infinite, as it should be.
        if (silu) value = __fdividef(value, 1.0f + __expf(-value));
        narrow(value, result.values[i]);
      }
      to[at + step * stride] = result;
    }
  }
}

int pixels_of(const TensorView& x) { return static_cast<int>(x.dim(1) * x.dim(2)); }

bool aligned(const void* pointer, std::int64_t bytes) {
  return reinterpret_cast<std::uintptr_t>(pointer) % static_cast<std::uintptr_t>(bytes) == 0;
}

/// Whether rows of pixels are whole vectors of `width` channels.
bool has_vectors(const TensorView& view, std::int64_t width) {
  return view.dim(3) % width == 0 && aligned(view.data(), width * static_cast<std::int64_t>(dtype_size(view.dtype())));
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
  const bool wide = has_vectors(x, x.dtype() == DType::kBF16 ? 8 : 4);
  if (x.dtype() == DType::kBF16) {
    wide ? launch(__nv_bfloat16{}, std::integral_constant<int, 8>())
         : launch(__nv_bfloat16{}, std::integral_constant<int, 1>());
  } else {
    wide ? launch(float{}, std::integral_constant<int, 4>()) : launch(float{}, std::integral_constant<int, 1>());
  }
  check_launch("group_norm measure");
}

void launch_join(ExecutionContext& context, const float* statistics, const float* weight, float* coefficients,
                 std::int64_t batch, int pixels, int channels, int groups, float eps) {
  const dim3 grid(static_cast<unsigned>(groups), static_cast<unsigned>(batch));
  const cudaStream_t stream = launch_stream(context);
  if (channels / groups % 4 == 0 && aligned(statistics, 16)) {
    join<4><<<grid, kJoinThreads, 0, stream>>>(statistics, weight, coefficients, pixels, channels, eps);
  } else {
    join<1><<<grid, kJoinThreads, 0, stream>>>(statistics, weight, coefficients, pixels, channels, eps);
  }
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
    // A thread's coefficients are worth loading for a few vectors; several turns of blocks, so that the last costs
    // little.
    constexpr std::int64_t kVectorsEach = 8, kBlocksEach = 24;  // of a thread, of a multiprocessor
    const std::int64_t enough = (vectors + kThreads * kVectorsEach - 1) / (kThreads * kVectorsEach);
    const std::int64_t wanted = device::cuda::multiprocessors_of(context) * kBlocksEach;
    const std::int64_t blocks = ((enough < wanted ? enough : wanted) + unit - 1) / unit * unit;
    const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(x.dim(0)));
    apply<In, Out, kWidth><<<grid, kThreads, 0, launch_stream(context)>>>(
        static_cast<const In*>(x.data()), static_cast<Out*>(out.data()), coefficients, bias, vectors, channels, silu);
  };
  const auto with_width = [&](auto in, auto result) {
    constexpr int kWidest = sizeof(in) == 4 || sizeof(result) == 4 ? 4 : 8;
    const bool wide =
        has_vectors(x, kWidest) && has_vectors(out, kWidest) && aligned(coefficients, 16) && aligned(bias, 16);
    wide ? launch(in, result, std::integral_constant<int, kWidest>())
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

std::size_t group_norm_scratch_bytes(const ExecutionContext&, const GroupNormArgs& args) {
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
