// attention as cuDNN computes it: no bias, no mask.
//
// cudnn: its own fused operation in bf16. With 2 x 38 heads of 64 and 4429 tokens (docs/performance.md) about 410
// TFLOP/s on one H100, by the fastest of the four kernels that cuDNN has for it; which one is chosen by timing.
//
// cudnn_fp8: all in E4M3 with static scales, the weights too, on sm_90 alone, where cuDNN demands that out is E4M3. By
// itself, cuDNN 9.19 on one H100 80GB took 0.827 ms at that shape, 462 TFLOP/s: less than the kernel of our own reaches
// in f16, so no model asks for this row. It is there to compare with, and for heads of 128, which that kernel does not
// take (935 TFLOP/s with 2 x 16 of them and 4096 tokens). cuDNN names configs for 16, 96 and 256 too, which are not
// tested. Seven scalars go beside it in device memory, written at every call by one small kernel.
#include <array>
#include <cstddef>

#include "device/cuda/cuda_device.h"
#include "device/cuda/cudnn_choice.h"
#include "ops/attention/attention_kernels.h"
#include "ops/attention/cuda/attention_graph.h"
#include "ops/attention/cuda/attention_rows.h"

namespace octavo::ops {
namespace {

using device::cuda::CudaDevice;
using Plan = std::shared_ptr<const device::cuda::CudnnPlan>;

constexpr std::size_t kVersion = 91400;  // has the operation in bf16, without the faults of its first

Plan plan_of(CudaDevice& device, const AttentionArgs& args) {
  const AttentionProblem problem = AttentionProblem::of(args);
  return device::cuda::choose_plan(device, attention_key(problem), [&] { return attention_graph(problem); });
}

Plan fp8_plan_of(CudaDevice& device, const AttentionArgs& args) {
  const AttentionProblem problem = AttentionProblem::of(args);
  return device::cuda::choose_plan(device, fp8_attention_key(problem), [&] { return fp8_attention_graph(problem); });
}

std::size_t aligned_workspace(const Plan& plan) { return (plan->workspace_bytes() + 255) / 256 * 256; }

/// Every row begins where 16 bytes may be read at a time.
bool whole_vectors(const TensorView& view) {
  const auto vector = static_cast<std::int64_t>(16 / dtype_size(view.dtype()));
  for (int axis = 0; axis + 1 < view.rank(); ++axis) {
    if (view.stride(axis) % vector != 0) return false;
  }
  return reinterpret_cast<std::uintptr_t>(view.data()) % 16 == 0;
}

bool supports_shape(const AttentionArgs& args) {
  const std::int64_t width = args.q.dim(3);
  return !args.bias.defined() && !args.causal && cudnnGetVersion() >= kVersion && (width == 64 || width == 128) &&
         args.q.dim(2) > 1 && args.k.dim(2) > 1 && whole_vectors(args.q) && whole_vectors(args.k) &&
         whole_vectors(args.v) && whole_vectors(args.out);
}

}  // namespace

bool attention_cudnn_supports(const AttentionArgs& args, const DeviceTraits&) {
  return args.q.dtype() == DType::kBF16 && args.out.dtype() == DType::kBF16 && has_plain_result(args) &&
         supports_shape(args);
}

std::size_t attention_cudnn_scratch_bytes(const ExecutionContext& context, const AttentionArgs& args) {
  return plan_of(device::cuda::device_of(context), args)->workspace_bytes();
}

void attention_cudnn(ExecutionContext& context, const AttentionArgs& args, void* scratch) {
  CudaDevice& device = device::cuda::device_of(context);
  float factor = args.score_factor;
  const std::array<void*, 5> pointers{args.q.data(), args.k.data(), args.v.data(), &factor, args.out.data()};
  const Plan plan = plan_of(device, args);  // may time on a stream of its own
  device::cuda::check(cudnnSetStream(device.cudnn(), device::cuda::stream_of(context)), "cudnnSetStream");
  plan->run(device.cudnn(), pointers, scratch);
}

bool attention_cudnn_fp8_supports(const AttentionArgs& args, const DeviceTraits& traits) {
  return traits.compute_capability == 90 && args.q.dtype() == DType::kE4M3 && args.v.dtype() == DType::kE4M3 &&
         args.out.dtype() == DType::kE4M3 && reinterpret_cast<std::uintptr_t>(args.out_quant_scale.data()) % 16 == 0 &&
         supports_shape(args);
}

std::size_t attention_cudnn_fp8_scratch_bytes(const ExecutionContext& context, const AttentionArgs& args) {
  return aligned_workspace(fp8_plan_of(device::cuda::device_of(context), args)) + kScalarCount * kScalarBytes;
}

void attention_cudnn_fp8(ExecutionContext& context, const AttentionArgs& args, void* scratch) {
  CudaDevice& device = device::cuda::device_of(context);
  const Plan plan = fp8_plan_of(device, args);
  const cudaStream_t stream = device::cuda::stream_of(context);
  std::byte* scalars = static_cast<std::byte*>(scratch) + aligned_workspace(plan);
  // score_factor holds the scales of q and k already.
  const std::array<float, kScalarCount> values{
      1.0f, 1.0f, 0.0f, kWeightQuantScale, 1.0f / kWeightQuantScale, args.value_factor, 0.0f};
  write_scalars(stream, values, scalars);
  const auto scalar = [&](std::size_t i) { return static_cast<void*>(scalars + i * kScalarBytes); };
  float factor = args.score_factor;
  const std::array<void*, 13> pointers{args.q.data(),
                                       args.k.data(),
                                       args.v.data(),
                                       &factor,
                                       scalar(0),
                                       scalar(1),
                                       scalar(2),
                                       scalar(3),
                                       scalar(4),
                                       scalar(5),
                                       args.out_quant_scale.data(),
                                       args.out.data(),
                                       scalar(6)};
  device::cuda::check(cudnnSetStream(device.cudnn(), stream), "cudnnSetStream");
  plan->run(device.cudnn(), pointers, scratch);
}

}  // namespace octavo::ops
