#include <type_traits>

#include "device/cuda/cuda_launch.h"
#include "ops/conv2d/cuda/conv2d_kernels.h"

namespace octavo::ops {
namespace {

using device::cuda::check_launch;
using device::cuda::launch_stream;

constexpr int kThreads = 256;

unsigned blocks_for(std::int64_t items) {
  constexpr std::int64_t kMost = std::int64_t{1} << 30;
  const std::int64_t blocks = (items + kThreads - 1) / kThreads;
  return static_cast<unsigned>(blocks < kMost ? blocks : kMost);
}

__device__ float widen(float value) { return value; }
__device__ float widen(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ float widen(__half value) { return __half2float(value); }
__device__ void store(float* to, float value) { *to = value; }
__device__ void store(__nv_bfloat16* to, float value) { *to = __float2bfloat16_rn(value); }

/// Bits copied: Unit is any type of the elements' size.
template <typename Unit>
__global__ void arrange(const Unit* from, Unit* to, std::int64_t count, int height, int width, int channels,
                        int to_channels, int zoom) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += stride) {
    const int c = static_cast<int>(i % to_channels);
    const std::int64_t pixel = i / to_channels;
    const int x = static_cast<int>(pixel % (width * zoom));
    const std::int64_t row = pixel / (width * zoom);
    const int y = static_cast<int>(row % (height * zoom));
    const std::int64_t picture = row / (height * zoom);
    Unit value{};
    if (c < channels) value = from[((picture * height + y / zoom) * width + x / zoom) * channels + c];
    to[i] = value;
  }
}

template <typename Bias, typename Out>
__global__ void finish(const float* sums, const Bias* bias, const Out* residual, Out* out, std::int64_t count,
                       int channels, int sum_channels) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += stride) {
    const int c = static_cast<int>(i % channels);
    float value = sums[i / channels * sum_channels + c];
    if (bias != nullptr) value += widen(bias[c]);
    if (residual != nullptr) value += widen(residual[i]);
    store(out + i, value);
  }
}

/// 8 bf16 of neighbouring channels.
struct alignas(16) Channels {
  __nv_bfloat162 pairs[4];
};

/// Blocks: (enough for a row of out, rows of out of all pictures).
__global__ void join(const Channels* phases, const Channels* residual, Channels* out, int height, int width,
                     int vectors) {
  const int row = static_cast<int>(blockIdx.y % (2 * height)), picture = static_cast<int>(blockIdx.y / (2 * height));
  const int phase_y = row % 2;
  const std::int64_t from_row = static_cast<std::int64_t>(picture) * (height + 1) + row / 2 + phase_y;
  const std::int64_t to = static_cast<std::int64_t>(blockIdx.y) * 2 * width * vectors;
  for (int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x); i < 2 * width * vectors;
       i += static_cast<int>(gridDim.x) * kThreads) {
    const int vector = i % vectors, column = i / vectors, phase_x = column % 2;
    const std::int64_t pixel = from_row * (width + 1) + column / 2 + phase_x;
    Channels value = phases[(pixel * 4 + 2 * phase_y + phase_x) * vectors + vector];
    if (residual != nullptr) {
      const Channels addend = residual[to + i];
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const float2 a = __bfloat1622float2(value.pairs[k]), b = __bfloat1622float2(addend.pairs[k]);
        value.pairs[k] = __floats2bfloat162_rn(a.x + b.x, a.y + b.y);
      }
    }
    out[to + i] = value;
  }
}

template <typename T>
__global__ void repeat(const T* bias, T* to, int channels) {
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (i < 4 * channels) to[i] = bias[i % channels];
}

template <typename From, typename To>
__global__ void pack(const From* from, To* to, std::int64_t count, int out_channels, int in_channels,
                     int to_in_channels, int taps) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += stride) {
    const int c = static_cast<int>(i % to_in_channels);
    const int tap = static_cast<int>(i / to_in_channels % taps);
    const std::int64_t n = i / to_in_channels / taps;
    float value = 0;
    if (c < in_channels && n < out_channels) value = widen(from[(n * in_channels + c) * taps + tap]);
    store(to + i, value);
  }
}

template <typename From, typename To>
__global__ void pack_phases(const From* from, To* to, std::int64_t count, int out_channels, int in_channels) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += stride) {
    std::int64_t rest = i;
    const int c = static_cast<int>(rest % in_channels);
    rest /= in_channels;
    const int tap_x = static_cast<int>(rest % 2), tap_y = static_cast<int>(rest / 2 % 2);
    rest /= 4;
    const std::int64_t n = rest % out_channels;
    const int phase_x = static_cast<int>(rest / out_channels % 2), phase_y = static_cast<int>(rest / out_channels / 2);
    // In phase 0 the first of the three taps meets the pixel before, the others this one; in phase 1 the last is alone.
    const auto first = [](int phase, int tap) { return tap == 0 ? 0 : phase + 1; };
    const auto last = [](int phase, int tap) { return tap == 0 ? phase : 2; };
    float sum = 0;
    for (int y = first(phase_y, tap_y); y <= last(phase_y, tap_y); ++y) {
      for (int x = first(phase_x, tap_x); x <= last(phase_x, tap_x); ++x) {
        sum += widen(from[((n * in_channels + c) * 3 + y) * 3 + x]);
      }
    }
    store(to + i, sum);
  }
}

/// Calls body(pointer to From, pointer to To) for the dtypes of two views.
template <typename Body>
void for_types(const TensorView& from, const TensorView& to, const Body& body) {
  const auto with_to = [&](auto* source) {
    if (to.dtype() == DType::kBF16) {
      body(source, static_cast<__nv_bfloat16*>(to.data()));
    } else {
      body(source, static_cast<float*>(to.data()));
    }
  };
  switch (from.dtype()) {
    case DType::kBF16:
      return with_to(static_cast<const __nv_bfloat16*>(from.data()));
    case DType::kF16:
      return with_to(static_cast<const __half*>(from.data()));
    default:
      return with_to(static_cast<const float*>(from.data()));
  }
}

}  // namespace

void arrange_for_conv(device::ExecutionContext& context, const TensorView& from, const TensorView& to, int zoom) {
  const int height = static_cast<int>(from.dim(1)), width = static_cast<int>(from.dim(2));
  const std::int64_t unit_bytes = 16, element = static_cast<std::int64_t>(dtype_size(from.dtype()));
  const std::int64_t channels = from.dim(3), to_channels = to.dim(3);
  const auto launch = [&](auto unit, std::int64_t elements_of_unit) {
    using Unit = decltype(unit);
    const std::int64_t count = to.element_count() / elements_of_unit;
    arrange<Unit><<<blocks_for(count), kThreads, 0, launch_stream(context)>>>(
        static_cast<const Unit*>(from.data()), static_cast<Unit*>(to.data()), count, height, width,
        static_cast<int>(channels / elements_of_unit), static_cast<int>(to_channels / elements_of_unit), zoom);
  };
  if (channels == to_channels && channels * element % unit_bytes == 0) {
    launch(uint4{}, unit_bytes / element);
  } else if (element == 2) {
    launch(std::uint16_t{}, 1);
  } else {
    launch(std::uint32_t{}, 1);
  }
  check_launch("arrange_for_conv");
}

void finish_conv(device::ExecutionContext& context, const TensorView& sums, const TensorView& bias,
                 const TensorView& residual, const TensorView& out) {
  const std::int64_t count = out.element_count();
  const int channels = static_cast<int>(out.dim(3)), sum_channels = static_cast<int>(sums.dim(3));
  for_types(bias, out, [&](const auto* addend, auto* to) {
    finish<<<blocks_for(count), kThreads, 0, launch_stream(context)>>>(static_cast<const float*>(sums.data()), addend,
                                                                       static_cast<decltype(to)>(residual.data()), to,
                                                                       count, channels, sum_channels);
  });
  check_launch("finish_conv");
}

void join_phases(device::ExecutionContext& context, const TensorView& phases, const TensorView& residual,
                 const TensorView& out) {
  const int height = static_cast<int>(out.dim(1) / 2), width = static_cast<int>(out.dim(2) / 2);
  const int vectors = static_cast<int>(out.dim(3) / 8);
  constexpr int kEach = 4;  // vectors of a thread
  const dim3 grid(blocks_for((2 * width * vectors + kEach - 1) / kEach),
                  static_cast<unsigned>(out.dim(0) * out.dim(1)));
  join<<<grid, kThreads, 0, launch_stream(context)>>>(static_cast<const Channels*>(phases.data()),
                                                      static_cast<const Channels*>(residual.data()),
                                                      static_cast<Channels*>(out.data()), height, width, vectors);
  check_launch("join_phases");
}

void repeat_bias(device::ExecutionContext& context, const TensorView& bias, const TensorView& to) {
  const int channels = static_cast<int>(bias.dim(0));
  for_types(bias, to, [&](const auto* from, auto* target) {
    if constexpr (std::is_same_v<std::remove_const_t<std::remove_pointer_t<decltype(from)>>,
                                 std::remove_pointer_t<decltype(target)>>) {
      repeat<<<blocks_for(4 * channels), kThreads, 0, launch_stream(context)>>>(from, target, channels);
    }
  });
  check_launch("repeat_bias");
}

void pack_conv(void* stream, const TensorView& from, const TensorView& to) {
  const std::int64_t count = to.element_count();
  for_types(from, to, [&](const auto* source, auto* target) {
    pack<<<blocks_for(count), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
        source, target, count, static_cast<int>(from.dim(0)), static_cast<int>(from.dim(1)),
        static_cast<int>(to.dim(3)), static_cast<int>(from.dim(2) * from.dim(3)));
  });
  check_launch("pack_conv");
}

void pack_conv_phases(void* stream, const TensorView& from, const TensorView& to) {
  const std::int64_t count = to.element_count();
  for_types(from, to, [&](const auto* source, auto* target) {
    pack_phases<<<blocks_for(count), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
        source, target, count, static_cast<int>(from.dim(0)), static_cast<int>(from.dim(1)));
  });
  check_launch("pack_conv_phases");
}

}  // namespace octavo::ops
