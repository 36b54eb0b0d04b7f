// cast on a GPU.
//
// Mapping: axes that lie together are joined on the host, so that a dense copy is one row; a thread moves a vector of
//   eight elements, neighbours neighbouring vectors.
// Bytes: each element once in its own type and once in the other. Every use is once a forward or once a picture.
#include "ops/cast/cast.h"
#include "ops/cuda/cuda_rows.h"
#include "ops/cuda/elements.cuh"

namespace octavo::ops {
namespace {

using namespace octavo::ops::cuda;  // NOLINT: the helpers of all kernels

constexpr int kThreads = 256;
constexpr int kMaxRank = 4;

/// Rows of `width` elements; `extents` of the axes outside them, strides in elements.
struct CopyArgs {
  const void* x = nullptr;
  void* out = nullptr;
  std::int64_t extents[kMaxRank - 1] = {1, 1, 1};
  std::int64_t x_strides[kMaxRank - 1] = {}, out_strides[kMaxRank - 1] = {};
  std::int64_t width = 0;
  std::int64_t vectors_per_row = 0, vectors = 0;
};

template <typename X, typename Out, bool kAligned>
__global__ void __launch_bounds__(kThreads) cast_kernel(const __grid_constant__ CopyArgs args) {
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= args.vectors) return;
  std::int64_t row = 0, vector = index;
  if (args.vectors != args.vectors_per_row) {
    row = index / args.vectors_per_row;
    vector = index % args.vectors_per_row;
  }
  std::int64_t from = vector * kVector, to = from;
  const auto left = static_cast<int>(min(std::int64_t{kVector}, args.width - from));
#pragma unroll
  for (int axis = kMaxRank - 2; axis >= 0; --axis) {
    if (args.extents[axis] == 1) continue;
    const std::int64_t i = row % args.extents[axis];
    row /= args.extents[axis];
    from += i * args.x_strides[axis];
    to += i * args.out_strides[axis];
  }
  float values[kVector];
  widen_vector(load_vector<kAligned, true>(static_cast<const X*>(args.x) + from, 0, left), values);
  store_vector<kAligned, false>(static_cast<Out*>(args.out) + to, 0, left, narrow_vector<Out>(values));
}

template <typename X, typename Out>
void launch(ExecutionContext& context, const CopyArgs& copy, bool aligned) {
  const auto kernel = aligned ? cast_kernel<X, Out, true> : cast_kernel<X, Out, false>;
  kernel<<<static_cast<unsigned>((copy.vectors + kThreads - 1) / kThreads), kThreads, 0,
           device::cuda::launch_stream(context)>>>(copy);
  device::cuda::check_launch("cast");
}

template <typename X>
void launch(ExecutionContext& context, const CopyArgs& copy, DType out, bool aligned) {
  switch (out) {
    case DType::kBF16:
      return launch<X, BF16>(context, copy, aligned);
    case DType::kF16:
      return launch<X, F16>(context, copy, aligned);
    default:
      return launch<X, float>(context, copy, aligned);
  }
}

void cast_cuda(ExecutionContext& context, const CastArgs& args, void*) {
  const auto& [x, out] = args;
  if (x.element_count() == 0) return;
  CopyArgs copy;
  copy.x = x.data();
  copy.out = out.data();
  copy.width = x.dim(-1);
  int outer = 0;  // axes kept so far, innermost first
  std::int64_t extents[kMaxRank - 1], x_strides[kMaxRank - 1], out_strides[kMaxRank - 1];
  for (int axis = x.rank() - 2; axis >= 0; --axis) {
    const std::int64_t extent = x.dim(axis), from = x.stride(axis), to = out.stride(axis);
    if (extent == 1) continue;
    if (outer == 0 && from == copy.width && to == copy.width) {
      copy.width *= extent;
    } else if (outer > 0 && from == extents[outer - 1] * x_strides[outer - 1] &&
               to == extents[outer - 1] * out_strides[outer - 1]) {
      extents[outer - 1] *= extent;
    } else {
      extents[outer] = extent;
      x_strides[outer] = from;
      out_strides[outer++] = to;
    }
  }
  std::int64_t rows = 1;
  for (int i = 0; i < outer; ++i) {
    copy.extents[kMaxRank - 2 - i] = extents[i];
    copy.x_strides[kMaxRank - 2 - i] = x_strides[i];
    copy.out_strides[kMaxRank - 2 - i] = out_strides[i];
    rows *= extents[i];
  }
  copy.vectors_per_row = (copy.width + kVector - 1) / kVector;
  copy.vectors = rows * copy.vectors_per_row;
  const bool aligned = copy.width % kVector == 0 && starts_in_vectors(x) && starts_in_vectors(out);
  switch (x.dtype()) {
    case DType::kBF16:
      return launch<BF16>(context, copy, out.dtype(), aligned);
    case DType::kF16:
      return launch<F16>(context, copy, out.dtype(), aligned);
    default:
      return launch<float>(context, copy, out.dtype(), aligned);
  }
}

}  // namespace

void add_cast_cuda_rows() {
  static constexpr KernelRow<CastArgs> kRows[] = {{.name = "cuda", .device = DeviceKind::kCuda, .run = cast_cuda}};
  cast_table().add_rows(kRows);
}

}  // namespace octavo::ops
