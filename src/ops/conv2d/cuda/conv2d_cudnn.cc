// conv2d on cuDNN's graphs, channels last.
//
// Mapping: one graph a convolution: the product over taps and channels on tensor cores, then bias and residual in its
//   epilogue; which of cuDNN's kernels runs is chosen by timing (device/cuda/cudnn_choice.h). Channels that are not
//   whole vectors of 8 (3 colours) are padded with zeros on their way in, or dropped on their way out.
// Upsampling: the 3x3 kernel on the doubled picture is one of four 2x2 kernels on the small one, by the row and column
// of
//   the pixel: 4 taps for 9, and the doubled input is never in memory. One convolution gives the channels of all four,
//   a pass brings them to their pixels. (Some of cuDNN's kernels with a bias take strides that would write them there
//   at once, and ignore them.) In f32 the picture is doubled instead: summed taps round otherwise than sums of
//   products.
// FLOPs 2 B height' width' Cout Cin kh kw. docs/performance.md has the decoder's table.
#include <utility>

#include "device/cuda/cuda_device.h"
#include "device/cuda/cudnn_choice.h"
#include "ops/conv2d/conv2d.h"
#include "ops/conv2d/cuda/conv2d_graph.h"
#include "ops/conv2d/cuda/conv2d_kernels.h"
#include "ops/conv2d/cuda/conv2d_narrow.h"
#include "ops/cuda/cuda_rows.h"

namespace octavo::ops {
namespace {

using device::cuda::check;
using device::cuda::CudaDevice;
using device::cuda::CudnnPlan;

constexpr std::int64_t kVector = 8;  // channels that cuDNN's kernels read at once

std::int64_t whole_vectors(std::int64_t channels) { return (channels + kVector - 1) / kVector * kVector; }
std::size_t aligned(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

/// [Cout', kernel, kernel, Cin'] on the device, and the phases of an upsampling where they are used.
class DeviceConvWeight final : public PackedWeight {
 public:
  DeviceConvWeight(device::Buffer taps, device::Buffer phases) : taps_(std::move(taps)), phases_(std::move(phases)) {}
  std::size_t byte_count() const override { return taps_.byte_count() + phases_.byte_count(); }
  void* taps() const { return taps_.data(); }
  void* phases() const { return phases_.data(); }

 private:
  device::Buffer taps_, phases_;
};

const DeviceConvWeight* packed_weight(const Conv2dArgs& args) {
  return dynamic_cast<const DeviceConvWeight*>(args.weight.packed.get());
}

std::shared_ptr<const CudnnPlan> plan_for(CudaDevice& device, const ConvProblem& problem) {
  return device::cuda::choose_plan(device, problem.key(), [&] { return problem.graph(); },
                                   {.exact_products = problem.x == DType::kF32});
}

/// How the arguments become one convolution of cuDNN.
struct ConvPlan {
  bool arranged = false;  // x is padded or doubled in scratch first
  bool finished = false;  // sums of more channels lie in scratch, the last pass makes out of them
  ConvProblem problem;
  std::size_t arranged_bytes = 0, sum_bytes = 0;
};

ConvPlan whole_plan(const Conv2dArgs& args) {
  const std::int64_t zoom = args.upsample ? 2 : 1;
  const ConvRows rows = conv_rows(args);
  ConvPlan plan;
  ConvProblem& problem = plan.problem;
  problem.batch = args.x.dim(0);
  problem.height = rows.rows;
  problem.width = args.x.dim(2) * zoom;
  problem.in_channels = whole_vectors(args.x.dim(3));
  problem.out_channels = whole_vectors(args.out.dim(3));
  problem.kernel = args.weight.plain.dim(2);
  problem.stride = args.stride;
  problem.rows = {rows.pad_before, rows.pad_after};
  problem.columns = {args.pad_before, args.pad_after};
  problem.x = args.x.dtype();
  plan.arranged = args.upsample || problem.in_channels != args.x.dim(3);
  plan.finished = problem.out_channels != args.out.dim(3) || (args.x.dtype() == DType::kF32 && args.residual.defined());
  if (plan.arranged) {
    plan.arranged_bytes =
        aligned(static_cast<std::size_t>(args.x.dim(0) * args.x.dim(1) * zoom * problem.width * problem.in_channels) *
                dtype_size(args.x.dtype()));
  }
  if (plan.finished) {
    problem.out = DType::kF32;
    plan.sum_bytes = aligned(
        static_cast<std::size_t>(args.out.element_count() / args.out.dim(3) * problem.out_channels) * sizeof(float));
  } else {
    problem.out = args.out.dtype();
    problem.bias = args.bias.defined();
    problem.bias_dtype = args.bias.dtype();
    problem.residual = args.residual.defined();
  }
  return plan;
}

bool by_phases(const Conv2dArgs& args) { return args.upsample && packed_weight(args)->phases() != nullptr; }

/// The channels of all phases, [B, height + 1, width + 1, 4 Cout]: at (y, x) for the four pixels around its corner.
ConvProblem phases_problem(const Conv2dArgs& args) {
  ConvProblem problem;
  problem.batch = args.x.dim(0);
  problem.height = args.x.dim(1);
  problem.width = args.x.dim(2);
  problem.in_channels = args.x.dim(3);
  problem.out_channels = 4 * args.out.dim(3);
  problem.kernel = 2;
  problem.rows = {args.halo_above ? 0 : 1, args.halo_below ? 0 : 1};
  problem.columns = {1, 1};
  problem.x = problem.out = args.x.dtype();
  problem.bias = args.bias.defined();
  problem.bias_dtype = args.bias.dtype();
  return problem;
}

Shape phases_shape(const ConvProblem& problem) {
  return {problem.batch, problem.out_height(), problem.out_width(), problem.out_channels};
}

std::size_t phases_bytes(const ConvProblem& problem) {
  return aligned(static_cast<std::size_t>(phases_shape(problem).element_count()) * dtype_size(problem.out));
}

/// Of the bias, once for every phase.
std::size_t repeated_bytes(const ConvProblem& problem) {
  return problem.bias ? aligned(static_cast<std::size_t>(problem.out_channels) * dtype_size(problem.bias_dtype)) : 0;
}

bool supports(const Conv2dArgs& args, const DeviceTraits&) {
  const DeviceConvWeight* weight = packed_weight(args);
  if (weight == nullptr) return false;
  if (weight->taps() == nullptr && (!args.upsample || args.out.dtype() != args.x.dtype())) return false;
  return args.weight.packed_for == args.x.dtype() &&
         (args.x.dtype() == DType::kBF16 || args.out.dtype() == DType::kF32);
}

std::size_t scratch_bytes(const ExecutionContext& context, const Conv2dArgs& args) {
  CudaDevice& device = device::cuda::device_of(context);
  if (by_phases(args)) {
    const ConvProblem problem = phases_problem(args);
    return phases_bytes(problem) + repeated_bytes(problem) + plan_for(device, problem)->workspace_bytes();
  }
  const ConvPlan plan = whole_plan(args);
  return plan.arranged_bytes + plan.sum_bytes + plan_for(device, plan.problem)->workspace_bytes();
}

/// x, weight, then what there is of residual and bias, then out.
void enqueue(ExecutionContext& context, const ConvProblem& problem, void* x, void* weight, void* bias, void* residual,
             void* out, void* workspace) {
  CudaDevice& device = device::cuda::device_of(context);
  std::array<void*, 5> pointers{x, weight};
  std::size_t count = 2;
  if (problem.residual) pointers[count++] = residual;
  if (problem.bias) pointers[count++] = bias;
  pointers[count++] = out;
  const auto plan = plan_for(device, problem);  // may time on a stream of its own
  check(cudnnSetStream(device.cudnn(), device::cuda::stream_of(context)), "cudnnSetStream");
  plan->run(device.cudnn(), std::span(pointers.data(), count), workspace);
}

void* offset(const TensorView& view, std::int64_t elements) {
  return static_cast<std::byte*>(view.data()) + elements * static_cast<std::int64_t>(dtype_size(view.dtype()));
}

void run_phases(ExecutionContext& context, const Conv2dArgs& args, void* scratch) {
  const ConvProblem problem = phases_problem(args);
  auto* next = static_cast<std::byte*>(scratch);
  const auto take = [&next](std::size_t bytes) { return std::exchange(next, next + bytes); };
  const TensorView phases(take(phases_bytes(problem)), problem.out, phases_shape(problem));
  void* bias = nullptr;
  if (problem.bias) {
    const TensorView repeated(take(repeated_bytes(problem)), problem.bias_dtype, Shape{4, args.bias.dim(0)});
    repeat_bias(context, args.bias, repeated);
    bias = repeated.data();
  }
  enqueue(context, problem, args.x.data(), packed_weight(args)->phases(), bias, nullptr, phases.data(), next);
  join_phases(context, phases, args.residual, args.out);
}

void run(ExecutionContext& context, const Conv2dArgs& args, void* scratch) {
  if (by_phases(args)) {
    run_phases(context, args, scratch);
    return;
  }
  const ConvPlan plan = whole_plan(args);
  const ConvProblem& problem = plan.problem;
  auto* next = static_cast<std::byte*>(scratch);
  TensorView x = args.x;
  if (plan.arranged) {
    const std::int64_t zoom = args.upsample ? 2 : 1;
    x = TensorView(next, args.x.dtype(),
                   Shape{args.x.dim(0), args.x.dim(1) * zoom, args.x.dim(2) * zoom, problem.in_channels});
    next += plan.arranged_bytes;
    arrange_for_conv(context, args.x, x, static_cast<int>(zoom));
  }
  TensorView out = args.out;
  if (plan.finished) {
    out = TensorView(next, DType::kF32, Shape{args.out.dim(0), args.out.dim(1), args.out.dim(2), problem.out_channels});
    next += plan.sum_bytes;
  }
  enqueue(context, problem, offset(x, conv_rows(args).skipped * x.dim(2) * x.dim(3)), packed_weight(args)->taps(),
          args.bias.data(), args.residual.data(), out.data(), next);
  if (plan.finished) finish_conv(context, out, args.bias, args.residual, args.out);
}

bool supports_narrow(const Conv2dArgs& args, const DeviceTraits&) {
  const DeviceConvWeight* weight = packed_weight(args);
  return weight != nullptr && weight->taps() != nullptr && args.weight.packed_for == args.x.dtype() &&
         conv2d_narrow_fits(args);
}

void run_narrow(ExecutionContext& context, const Conv2dArgs& args, void*) {
  conv2d_narrow(context, args, packed_weight(args)->taps());
}

Result<ConvWeight> pack(device::Device& device, const TensorView& plain, DType activation_dtype, bool upsamples) {
  const std::unique_ptr<device::Stream> stream = device.create_stream();
  TensorView source = plain;
  device::Buffer uploaded;
  if (!device::cuda::on_device(plain.data())) {
    OCTAVO_ASSIGN_OR_RETURN(uploaded, device.allocate(plain.byte_count()));
    device.copy_to_device(*stream, uploaded.data(), plain.data(), plain.byte_count());
    source = plain.moved_to(uploaded.data());
  }
  void* handle = static_cast<device::cuda::CudaStream&>(*stream).handle();
  const std::int64_t kernel = plain.dim(2);
  const Shape shape{whole_vectors(plain.dim(0)), kernel, kernel, whole_vectors(plain.dim(1))};
  device::Buffer taps, phases;
  const bool whole = shape[0] == plain.dim(0) && shape[3] == plain.dim(1);
  if (upsamples && whole && kernel == 3 && activation_dtype == DType::kBF16) {
    const Shape phases_shape{4, plain.dim(0), 2, 2, plain.dim(1)};
    OCTAVO_ASSIGN_OR_RETURN(
        phases, device.allocate(static_cast<std::size_t>(phases_shape.element_count()) * dtype_size(activation_dtype)));
    pack_conv_phases(handle, source, TensorView(phases.data(), activation_dtype, phases_shape));
  } else {
    OCTAVO_ASSIGN_OR_RETURN(
        taps, device.allocate(static_cast<std::size_t>(shape.element_count()) * dtype_size(activation_dtype)));
    pack_conv(handle, source, TensorView(taps.data(), activation_dtype, shape));
  }
  stream->synchronize();
  ConvWeight weight;
  weight.plain = plain.moved_to(nullptr);  // its shape; nothing reads it any more
  weight.packed = std::make_shared<DeviceConvWeight>(std::move(taps), std::move(phases));
  weight.packed_for = activation_dtype;
  return weight;
}

}  // namespace

void add_conv2d_cuda_rows() {
  static const KernelRow<Conv2dArgs> rows[] = {
      {.name = "narrow", .device = DeviceKind::kCuda, .supports = supports_narrow, .run = run_narrow},
      {.name = "cudnn", .device = DeviceKind::kCuda, .supports = supports, .scratch_bytes = scratch_bytes, .run = run}};
  conv2d_table().add_rows(rows);
  set_conv_packer(pack);
}

}  // namespace octavo::ops
