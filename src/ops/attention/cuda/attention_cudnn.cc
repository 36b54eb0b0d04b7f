// attention as cuDNN's own fused operation: bf16, no bias, no mask.
//
// Measured with 2 x 38 heads of 64 and 4429 tokens (docs/performance.md): about 410 TFLOP/s on one H100, by the fastest
// of the four kernels that cuDNN has for it; which one is chosen by timing.
#include <array>

#include "device/cuda/cuda_device.h"
#include "device/cuda/cudnn_choice.h"
#include "ops/attention/cuda/attention_graph.h"
#include "ops/attention/cuda/attention_rows.h"

namespace octavo::ops {
namespace {

AttentionProblem problem_of(const AttentionArgs& args) {
  const auto strides = [](const TensorView& view) {
    return AttentionProblem::Strides{view.stride(0), view.stride(1), view.stride(2)};
  };
  return {.batch = args.q.dim(0),
          .heads = args.q.dim(1),
          .queries = args.q.dim(2),
          .keys = args.k.dim(2),
          .width = args.q.dim(3),
          .q = strides(args.q),
          .k = strides(args.k),
          .v = strides(args.v),
          .out = {args.out.stride(0), args.q.dim(3), args.out.stride(1)}};
}

std::shared_ptr<const device::cuda::CudnnPlan> plan_of(device::cuda::CudaDevice& device,
                                                       const AttentionProblem& problem) {
  return device::cuda::choose_plan(device, problem.key(), [&] { return problem.graph(); });
}

bool whole_vectors(const TensorView& view) {
  constexpr std::int64_t kVector = 8;
  for (int axis = 0; axis + 1 < view.rank(); ++axis) {
    if (view.stride(axis) % kVector != 0) return false;
  }
  return reinterpret_cast<std::uintptr_t>(view.data()) % 16 == 0;
}

}  // namespace

bool attention_cudnn_supports(const AttentionArgs& args, const DeviceTraits&) {
  constexpr std::size_t kVersion = 91400;  // has the operation, without the faults of its first
  const std::int64_t width = args.q.dim(3);
  return args.q.dtype() == DType::kBF16 && args.out.dtype() == DType::kBF16 && !args.bias.defined() && !args.causal &&
         cudnnGetVersion() >= kVersion && (width == 64 || width == 128) && args.q.dim(2) > 1 && args.k.dim(2) > 1 &&
         whole_vectors(args.q) && whole_vectors(args.k) && whole_vectors(args.v) && whole_vectors(args.out);
}

std::size_t attention_cudnn_scratch_bytes(const ExecutionContext& context, const AttentionArgs& args) {
  return plan_of(device::cuda::device_of(context), problem_of(args))->workspace_bytes();
}

void attention_cudnn(ExecutionContext& context, const AttentionArgs& args, void* scratch) {
  device::cuda::CudaDevice& device = device::cuda::device_of(context);
  float factor = args.score_factor;
  const std::array<void*, 5> pointers{args.q.data(), args.k.data(), args.v.data(), &factor, args.out.data()};
  const auto plan = plan_of(device, problem_of(args));  // may time on a stream of its own
  device::cuda::check(cudnnSetStream(device.cudnn(), device::cuda::stream_of(context)), "cudnnSetStream");
  plan->run(device.cudnn(), pointers, scratch);
}

}  // namespace octavo::ops
