// Look-ups and the timestep's sinusoid on a GPU: once a picture each, a few megabytes.
//
// embedding: a thread a vector of eight elements of a token's row. timestep_embedding: a thread a frequency, in double
//   where the reference is, so that phases agree. relative_bias: a thread an element; the buckets of all distances come
//   from the host as an argument of 128 bytes, because the logarithm decides at exact powers of two.
#include "ops/cuda/cuda_rows.h"
#include "ops/cuda/elements.cuh"
#include "ops/embedding/embedding.h"
#include "ops/embedding/embedding_kernels.h"

namespace octavo::ops {
namespace {

using namespace octavo::ops::cuda;  // NOLINT: the helpers of all kernels

constexpr int kThreads = 256;

unsigned blocks_for(std::int64_t threads) { return static_cast<unsigned>((threads + kThreads - 1) / kThreads); }

struct LookUpArgs {
  const std::int32_t* ids = nullptr;
  std::int64_t ids_stride = 0;
  Rows table, positions, out;
  int tokens = 0, width = 0, table_rows = 0, vectors_per_row = 0;
  std::int64_t vectors = 0;
};

template <bool kAligned>
__global__ void __launch_bounds__(kThreads) embedding_kernel(const __grid_constant__ LookUpArgs args) {
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= args.vectors) return;
  const int begin = static_cast<int>(index % args.vectors_per_row) * kVector;
  const auto row = static_cast<int>(index / args.vectors_per_row);
  const int b = row / args.tokens, t = row % args.tokens;
  const std::int32_t id = args.ids[b * args.ids_stride + t];
  float values[kVector];
  if (id < 0 || id >= args.table_rows) {
    // No row reads beyond the table; NaN is found by check_finite.
#pragma unroll
    for (int j = 0; j < kVector; ++j) values[j] = __uint_as_float(0x7FC00000u);
  } else {
    load_floats<kAligned>(args.table.row(0, id), args.table.dtype, begin, args.width, values);
    if (args.positions.defined()) {
      float position[kVector];
      load_floats<kAligned>(args.positions.row(0, t), args.positions.dtype, begin, args.width, position);
#pragma unroll
      for (int j = 0; j < kVector; ++j) values[j] = __fadd_rn(values[j], position[j]);
    }
  }
  store_vector<kAligned, false>(args.out.row<float>(b, t), begin, args.width, narrow_vector<float>(values));
}

void embedding_cuda(ExecutionContext& context, const EmbeddingArgs& args, void*) {
  if (args.out.element_count() == 0) return;
  LookUpArgs look_up;
  look_up.ids = args.ids.as<std::int32_t>();
  look_up.ids_stride = args.ids.stride(0);
  look_up.table = rows_of(args.table);
  look_up.positions = rows_of(args.positions);
  look_up.out = rows_of(args.out);
  look_up.tokens = static_cast<int>(args.out.dim(1));
  look_up.width = static_cast<int>(args.out.dim(2));
  look_up.table_rows = static_cast<int>(args.table.dim(0));
  look_up.vectors_per_row = (look_up.width + kVector - 1) / kVector;
  look_up.vectors = args.out.dim(0) * args.out.dim(1) * look_up.vectors_per_row;
  const bool aligned = in_vectors(args.table) && in_vectors(args.positions) && in_vectors(args.out);
  const auto kernel = aligned ? embedding_kernel<true> : embedding_kernel<false>;
  kernel<<<blocks_for(look_up.vectors), kThreads, 0, device::cuda::launch_stream(context)>>>(look_up);
  device::cuda::check_launch("embedding");
}

__global__ void __launch_bounds__(kThreads)
    timestep_kernel(const float* timesteps, float* out, std::int64_t out_stride, int rows, int half) {
  const int index = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (index >= rows * half) return;
  const int m = index / half, k = index % half;
  // Every intermediate that the reference rounds to float is rounded here.
  const float exponent = __fdiv_rn(__fmul_rn(static_cast<float>(-9.210340371976182736), static_cast<float>(k)),
                                   static_cast<float>(half));  // -ln(10000) k / half
  const float frequency = static_cast<float>(exp(static_cast<double>(exponent)));
  const float phase = __fmul_rn(timesteps[m], frequency);
  float* row = out + m * out_stride;
  row[k] = static_cast<float>(cos(static_cast<double>(phase)));
  row[half + k] = static_cast<float>(sin(static_cast<double>(phase)));
}

void timestep_embedding_cuda(ExecutionContext& context, const TimestepEmbeddingArgs& args, void*) {
  if (args.out.element_count() == 0) return;
  const auto rows = static_cast<int>(args.out.dim(0)), half = static_cast<int>(args.out.dim(1) / 2);
  timestep_kernel<<<blocks_for(std::int64_t{rows} * half), kThreads, 0, device::cuda::launch_stream(context)>>>(
      args.timesteps.f32(), args.out.f32(), args.out.stride(0), rows, half);
  device::cuda::check_launch("timestep_embedding");
}

/// Buckets of key - query = 0 .. -127; the other direction's are 16 higher, and from 128 on nothing changes.
constexpr int kDistances = 128;
constexpr int kBucketsPerDirection = 16;
struct Buckets {
  std::uint8_t of[kDistances];
};

__global__ void __launch_bounds__(kThreads)
    relative_bias_kernel(const __grid_constant__ Rows table, const __grid_constant__ Buckets buckets, float* out,
                         std::int64_t head_stride, std::int64_t query_stride, int heads, int tokens) {
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= std::int64_t{heads} * tokens * tokens) return;
  const auto key = static_cast<int>(index % tokens);
  const auto query = static_cast<int>(index / tokens % tokens);
  const auto h = static_cast<int>(index / tokens / tokens);
  const int distance = key - query;
  const int bucket = buckets.of[min(abs(distance), kDistances - 1)] + (distance > 0 ? kBucketsPerDirection : 0);
  const float value = table.dtype == DType::kF32    ? table.row<const float>(0, bucket)[h]
                      : table.dtype == DType::kBF16 ? widen(table.row<const BF16>(0, bucket)[h])
                                                    : widen(table.row<const F16>(0, bucket)[h]);
  out[h * head_stride + query * query_stride + key] = value;
}

void relative_bias_cuda(ExecutionContext& context, const RelativeBiasArgs& args, void*) {
  if (args.out.element_count() == 0) return;
  Buckets buckets;
  for (int distance = 0; distance < kDistances; ++distance) {
    buckets.of[distance] = static_cast<std::uint8_t>(relative_bucket(-distance));
  }
  relative_bias_kernel<<<blocks_for(args.out.element_count()), kThreads, 0, device::cuda::launch_stream(context)>>>(
      rows_of(args.table), buckets, args.out.f32(), args.out.stride(0), args.out.stride(1),
      static_cast<int>(args.out.dim(0)), static_cast<int>(args.out.dim(1)));
  device::cuda::check_launch("relative_bias");
}

}  // namespace

void add_embedding_cuda_rows() {
  static constexpr KernelRow<EmbeddingArgs> kEmbedding[] = {
      {.name = "cuda", .device = DeviceKind::kCuda, .run = embedding_cuda}};
  static constexpr KernelRow<TimestepEmbeddingArgs> kTimestep[] = {
      {.name = "cuda", .device = DeviceKind::kCuda, .run = timestep_embedding_cuda}};
  static constexpr KernelRow<RelativeBiasArgs> kBias[] = {
      {.name = "cuda", .device = DeviceKind::kCuda, .run = relative_bias_cuda}};
  embedding_table().add_rows(kEmbedding);
  timestep_embedding_table().add_rows(kTimestep);
  relative_bias_table().add_rows(kBias);
}

}  // namespace octavo::ops
