// What happens to latents between forwards, on a GPU: 1 MB at 1024 x 1024, a few launches a step; a picture once.
//
// Mapping: a thread an element or four. Every product and every sum is rounded by itself (_rn intrinsics, which nvcc
//   does not contract), so that results equal the CPU's bit for bit.
#include <algorithm>

#include "ops/cuda/cuda_rows.h"
#include "ops/cuda/elements.cuh"
#include "ops/sample/sample.h"

namespace octavo::ops {
namespace {

using namespace octavo::ops::cuda;  // NOLINT: the helpers of all kernels

constexpr int kThreads = 256;

unsigned blocks_for(std::int64_t threads) { return static_cast<unsigned>((threads + kThreads - 1) / kThreads); }

struct SumArgs {
  float coefficients[4] = {};
  const float* inputs[4] = {};
  int term_count = 0;
  float* out = nullptr;
  std::int64_t count = 0;
};

__global__ void __launch_bounds__(kThreads) lincomb_kernel(const __grid_constant__ SumArgs args) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= args.count) return;
  float sum = 0.0f;
#pragma unroll
  for (int term = 0; term < 4; ++term) {
    if (term >= args.term_count) break;
    const float product = __fmul_rn(args.coefficients[term], args.inputs[term][i]);
    sum = term == 0 ? product : __fadd_rn(sum, product);
  }
  args.out[i] = sum;
}

void lincomb_cuda(ExecutionContext& context, const LincombArgs& args, void*) {
  SumArgs sum;
  sum.term_count = args.term_count;
  for (int term = 0; term < args.term_count; ++term) {
    sum.coefficients[term] = args.terms[static_cast<std::size_t>(term)].coefficient;
    sum.inputs[term] = args.terms[static_cast<std::size_t>(term)].input.f32();
  }
  sum.out = args.out.f32();
  sum.count = args.out.element_count();
  if (sum.count == 0) return;
  lincomb_kernel<<<blocks_for(sum.count), kThreads, 0, device::cuda::launch_stream(context)>>>(sum);
  device::cuda::check_launch("lincomb");
}

__global__ void __launch_bounds__(kThreads)
    guidance_kernel(const float* uncond, const float* cond, float scale, float* out, std::int64_t count) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const float base = uncond[i];
  out[i] = __fadd_rn(base, __fmul_rn(scale, __fsub_rn(cond[i], base)));
}

void guidance_cuda(ExecutionContext& context, const GuidanceArgs& args, void*) {
  const std::int64_t count = args.out.element_count();
  if (count == 0) return;
  guidance_kernel<<<blocks_for(count), kThreads, 0, device::cuda::launch_stream(context)>>>(
      args.uncond.f32(), args.cond.f32(), args.guidance_scale, args.out.f32(), count);
  device::cuda::check_launch("guidance");
}

__global__ void __launch_bounds__(kThreads)
    blend_known_kernel(const float* image, const float* noise, const float* mask, float sigma, float* latents,
                       int channels, int pixels, std::int64_t count) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const float m = mask[i / pixels / channels * pixels + i % pixels];
  const float noisy = __fmul_rn(sigma, noise[i]);
  const float from_image = __fmul_rn(__fsub_rn(1.0f, sigma), image[i]);
  const float known = __fmul_rn(__fsub_rn(1.0f, m), __fadd_rn(noisy, from_image));
  latents[i] = __fadd_rn(known, __fmul_rn(m, latents[i]));
}

void blend_known_cuda(ExecutionContext& context, const BlendKnownArgs& args, void*) {
  const std::int64_t count = args.latents.element_count();
  if (count == 0) return;
  blend_known_kernel<<<blocks_for(count), kThreads, 0, device::cuda::launch_stream(context)>>>(
      args.image.f32(), args.noise.f32(), args.mask.f32(), args.sigma, args.latents.f32(),
      static_cast<int>(args.latents.dim(1)), static_cast<int>(args.latents.dim(2) * args.latents.dim(3)), count);
  device::cuda::check_launch("blend_known");
}

/// Four axes, strides in elements.
struct Grid {
  void* data = nullptr;
  std::int64_t strides[3] = {};  // the last axis lies together
};

Grid grid_of(const TensorView& view) { return {view.data(), {view.stride(0), view.stride(1), view.stride(2)}}; }

/// A thread a pixel: its neighbours read neighbouring pixels of each plane, and it writes its channels together.
template <typename Out>
__global__ void __launch_bounds__(kThreads)
    latents_to_decoder_kernel(const __grid_constant__ Grid latents, const __grid_constant__ Grid out, int channels,
                              int height, int width, float factor, float shift, std::int64_t pixels) {
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= pixels) return;
  const std::int64_t x = index % width, y = index / width % height, b = index / width / height;
  const float* from = static_cast<const float*>(latents.data) + b * latents.strides[0] + y * latents.strides[2] + x;
  Out* to = static_cast<Out*>(out.data) + b * out.strides[0] + y * out.strides[1] + x * out.strides[2];
  for (int c = 0; c < channels; ++c) {
    to[c] = narrow<Out>(__fadd_rn(__fdiv_rn(from[c * latents.strides[1]], factor), shift));
  }
}

void latents_to_decoder_cuda(ExecutionContext& context, const LatentsToDecoderArgs& args, void*) {
  const auto channels = static_cast<int>(args.latents.dim(1)), height = static_cast<int>(args.latents.dim(2)),
             width = static_cast<int>(args.latents.dim(3));
  const std::int64_t pixels = args.latents.dim(0) * height * width;
  if (pixels == 0) return;
  const auto kernel =
      args.out.dtype() == DType::kBF16 ? latents_to_decoder_kernel<BF16> : latents_to_decoder_kernel<float>;
  kernel<<<blocks_for(pixels), kThreads, 0, device::cuda::launch_stream(context)>>>(
      grid_of(args.latents), grid_of(args.out), channels, height, width, args.scaling_factor, args.shift_factor,
      pixels);
  device::cuda::check_launch("latents_to_decoder");
}

template <typename X>
__global__ void __launch_bounds__(kThreads)
    to_pixels_kernel(const __grid_constant__ Grid x, const __grid_constant__ Grid out, int height, int width,
                     std::int64_t count) {
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= count) return;
  const std::int64_t c = index % 3, column = index / 3 % width, row = index / 3 / width % height,
                     b = index / 3 / width / height;
  const float value =
      widen(static_cast<const X*>(x.data)[b * x.strides[0] + row * x.strides[1] + column * x.strides[2] + c]);
  const float unit = __fadd_rn(__fmul_rn(value, 0.5f), 0.5f);
  const float clamped = unit > 0.0f ? (unit < 1.0f ? unit : 1.0f) : 0.0f;  // NaN falls to 0
  static_cast<std::uint8_t*>(out.data)[b * out.strides[0] + row * out.strides[1] + column * out.strides[2] + c] =
      static_cast<std::uint8_t>(__float2int_rn(__fmul_rn(clamped, 255.0f)));
}

void to_pixels_cuda(ExecutionContext& context, const ToPixelsArgs& args, void*) {
  const std::int64_t count = args.x.element_count();
  if (count == 0) return;
  const auto kernel = args.x.dtype() == DType::kBF16 ? to_pixels_kernel<BF16> : to_pixels_kernel<float>;
  kernel<<<blocks_for(count), kThreads, 0, device::cuda::launch_stream(context)>>>(
      grid_of(args.x), grid_of(args.out), static_cast<int>(args.x.dim(1)), static_cast<int>(args.x.dim(2)), count);
  device::cuda::check_launch("to_pixels");
}

__global__ void set_kernel(std::int32_t* flag) { *flag = 1; }

/// Whoever finds one writes the same 0.
__global__ void __launch_bounds__(kThreads)
    check_finite_kernel(const float* x, std::int64_t count, std::int32_t* all_finite) {
  bool bad = false;
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) {
    bad = bad || magnitude_bits(x[i]) >= 0x7F800000u;
  }
  if (bad) *all_finite = 0;
}

void check_finite_cuda(ExecutionContext& context, const CheckFiniteArgs& args, void*) {
  const cudaStream_t stream = device::cuda::launch_stream(context);
  const std::int64_t count = args.x.element_count();
  std::int32_t* flag = args.all_finite.as<std::int32_t>();
  set_kernel<<<1, 1, 0, stream>>>(flag);
  const auto most = static_cast<unsigned>(4 * device::cuda::multiprocessors_of(context));
  if (count > 0) {
    check_finite_kernel<<<std::min(blocks_for(count), most), kThreads, 0, stream>>>(args.x.f32(), count, flag);
  }
  device::cuda::check_launch("check_finite");
}

}  // namespace

void add_sample_cuda_rows() {
  static constexpr KernelRow<LincombArgs> kLincomb[] = {
      {.name = "cuda", .device = DeviceKind::kCuda, .run = lincomb_cuda}};
  static constexpr KernelRow<GuidanceArgs> kGuidance[] = {
      {.name = "cuda", .device = DeviceKind::kCuda, .run = guidance_cuda}};
  static constexpr KernelRow<BlendKnownArgs> kBlend[] = {
      {.name = "cuda", .device = DeviceKind::kCuda, .run = blend_known_cuda}};
  static constexpr KernelRow<LatentsToDecoderArgs> kDecoder[] = {
      {.name = "cuda", .device = DeviceKind::kCuda, .run = latents_to_decoder_cuda}};
  static constexpr KernelRow<ToPixelsArgs> kPixels[] = {
      {.name = "cuda", .device = DeviceKind::kCuda, .run = to_pixels_cuda}};
  static constexpr KernelRow<CheckFiniteArgs> kFinite[] = {
      {.name = "cuda", .device = DeviceKind::kCuda, .run = check_finite_cuda}};
  lincomb_table().add_rows(kLincomb);
  guidance_table().add_rows(kGuidance);
  blend_known_table().add_rows(kBlend);
  latents_to_decoder_table().add_rows(kDecoder);
  to_pixels_table().add_rows(kPixels);
  check_finite_table().add_rows(kFinite);
}

}  // namespace octavo::ops
