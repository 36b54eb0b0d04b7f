// Latents to tokens and back on a GPU: once a forward each.
//
// patchify and unpatchify: a thread an element of the output, which is written together; the input comes from the
// second
//   level (1 MB of latents at 1024 x 1024). add_positions: a thread a vector of eight elements: at [2, 4096, 2432] in
//   bf16 2 in, 2 out and 2 of the table an element, 100 MB of which the second batch row's table is in the second
//   level.
#include "ops/cuda/cuda_rows.h"
#include "ops/cuda/elements.cuh"
#include "ops/patch/patch.h"

namespace octavo::ops {
namespace {

using namespace octavo::ops::cuda;  // NOLINT: the helpers of all kernels

constexpr int kThreads = 256;

unsigned blocks_for(std::int64_t threads) { return static_cast<unsigned>((threads + kThreads - 1) / kThreads); }

/// [B, C, height, width] f32, strides in elements.
struct Planes {
  float* data = nullptr;
  std::int64_t batch_stride = 0, channel_stride = 0, row_stride = 0;
  int batch = 0, channels = 0, height = 0, width = 0;
};

Planes planes_of(const TensorView& view) {
  return {view.f32(),
          view.stride(0),
          view.stride(1),
          view.stride(2),
          static_cast<int>(view.dim(0)),
          static_cast<int>(view.dim(1)),
          static_cast<int>(view.dim(2)),
          static_cast<int>(view.dim(3))};
}

template <typename Out>
__global__ void __launch_bounds__(kThreads)
    patchify_kernel(const __grid_constant__ Planes latents, const __grid_constant__ Rows out, std::int64_t count) {
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= count) return;
  const int features = 4 * latents.channels, columns = latents.width / 2, tokens = columns * (latents.height / 2);
  const auto i = static_cast<int>(index % features);
  const auto token = static_cast<int>(index / features % tokens);
  const auto b = static_cast<int>(index / features / tokens);
  const int y = 2 * (token / columns) + i / 2 % 2, x = 2 * (token % columns) + i % 2;
  const float value =
      latents
          .data[b % latents.batch * latents.batch_stride + i / 4 * latents.channel_stride + y * latents.row_stride + x];
  out.row<Out>(b, token)[i] = narrow<Out>(value);
}

void patchify_cuda(ExecutionContext& context, const PatchifyArgs& args, void*) {
  const std::int64_t count = args.out.element_count();
  if (count == 0) return;
  const auto kernel = args.out.dtype() == DType::kBF16 ? patchify_kernel<BF16> : patchify_kernel<float>;
  kernel<<<blocks_for(count), kThreads, 0, device::cuda::launch_stream(context)>>>(planes_of(args.latents),
                                                                                   rows_of(args.out), count);
  device::cuda::check_launch("patchify");
}

__global__ void __launch_bounds__(kThreads)
    unpatchify_kernel(const __grid_constant__ Rows tokens, const __grid_constant__ Planes out, std::int64_t count) {
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= count) return;
  const auto x = static_cast<int>(index % out.width);
  const auto y = static_cast<int>(index / out.width % out.height);
  const auto c = static_cast<int>(index / out.width / out.height % out.channels);
  const auto b = static_cast<int>(index / out.width / out.height / out.channels);
  const int token = y / 2 * (out.width / 2) + x / 2;
  out.data[b * out.batch_stride + c * out.channel_stride + y * out.row_stride + x] =
      tokens.row<const float>(b, token)[(2 * (y % 2) + x % 2) * out.channels + c];
}

void unpatchify_cuda(ExecutionContext& context, const UnpatchifyArgs& args, void*) {
  const std::int64_t count = args.out.element_count();
  if (count == 0) return;
  unpatchify_kernel<<<blocks_for(count), kThreads, 0, device::cuda::launch_stream(context)>>>(
      rows_of(args.tokens), planes_of(args.out), count);
  device::cuda::check_launch("unpatchify");
}

struct PositionArgs {
  Rows x, table;  // a row of the table is a "batch", a column a "token"
  int tokens = 0, columns = 0, width = 0, top = 0, left = 0, vectors_per_row = 0;
  std::int64_t vectors = 0;
};

template <typename X, bool kAligned>
__global__ void __launch_bounds__(kThreads) add_positions_kernel(const __grid_constant__ PositionArgs args) {
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= args.vectors) return;
  const int begin = static_cast<int>(index % args.vectors_per_row) * kVector;
  const auto row = static_cast<int>(index / args.vectors_per_row);
  const int b = row / args.tokens, t = row % args.tokens;
  X* x_row = args.x.row<X>(b, t);
  float values[kVector], position[kVector];
  widen_vector(load_vector<kAligned, false>(x_row, begin, args.width), values);
  load_floats<kAligned>(args.table.row(args.top + t / args.columns, args.left + t % args.columns), args.table.dtype,
                        begin, args.width, position);
#pragma unroll
  for (int j = 0; j < kVector; ++j) values[j] = __fadd_rn(values[j], position[j]);
  store_vector<kAligned, false>(x_row, begin, args.width, narrow_vector<X>(values));
}

void add_positions_cuda(ExecutionContext& context, const AddPositionsArgs& args, void*) {
  if (args.x.element_count() == 0) return;
  PositionArgs positions;
  positions.x = rows_of(args.x);
  positions.table = rows_of(args.table);
  positions.tokens = static_cast<int>(args.x.dim(1));
  positions.columns = args.columns;
  positions.width = static_cast<int>(args.x.dim(2));
  positions.top = static_cast<int>(args.table.dim(0) - args.rows) / 2;
  positions.left = static_cast<int>(args.table.dim(1) - args.columns) / 2;
  positions.vectors_per_row = (positions.width + kVector - 1) / kVector;
  positions.vectors = args.x.dim(0) * args.x.dim(1) * positions.vectors_per_row;
  const bool aligned = in_vectors(args.x) && in_vectors(args.table);
  const auto launch = [&](auto* kernel) {
    kernel<<<blocks_for(positions.vectors), kThreads, 0, device::cuda::launch_stream(context)>>>(positions);
  };
  if (args.x.dtype() == DType::kBF16) {
    launch(aligned ? add_positions_kernel<BF16, true> : add_positions_kernel<BF16, false>);
  } else {
    launch(aligned ? add_positions_kernel<float, true> : add_positions_kernel<float, false>);
  }
  device::cuda::check_launch("add_positions");
}

}  // namespace

void add_patch_cuda_rows() {
  static constexpr KernelRow<PatchifyArgs> kPatchify[] = {
      {.name = "cuda", .device = DeviceKind::kCuda, .run = patchify_cuda}};
  static constexpr KernelRow<AddPositionsArgs> kPositions[] = {
      {.name = "cuda", .device = DeviceKind::kCuda, .run = add_positions_cuda}};
  static constexpr KernelRow<UnpatchifyArgs> kUnpatchify[] = {
      {.name = "cuda", .device = DeviceKind::kCuda, .run = unpatchify_cuda}};
  patchify_table().add_rows(kPatchify);
  add_positions_table().add_rows(kPositions);
  unpatchify_table().add_rows(kUnpatchify);
}

}  // namespace octavo::ops
