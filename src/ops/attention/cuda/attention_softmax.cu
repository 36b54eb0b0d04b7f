// The softmax between the two products of the unfused attention: weights over the scores, in place.
//
// Mapping: a block of threads a row. A row of up to kThreads * kHeld keys stays in registers between its maximum, its
// sum
//   and its weights; a longer one is read twice. Bound by memory: 4 bytes read and 2 or 4 written a score.
#include <cfloat>

#include "device/cuda/cuda_launch.h"
#include "ops/attention/cuda/attention_rows.h"

namespace octavo::ops {
namespace {

__device__ void put(float* row, std::int64_t key, float weight) { row[key] = weight; }
__device__ void put(__nv_bfloat16* row, std::int64_t key, float weight) { row[key] = __float2bfloat16_rn(weight); }

template <int kThreads, typename Combine>
__device__ float over_block(float value, float* shared, const Combine& combine) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    value = combine(value, __shfl_xor_sync(0xffffffffu, value, distance));
  }
  if constexpr (kThreads > 32) {
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
    __syncthreads();
    value = shared[0];
#pragma unroll
    for (int warp = 1; warp < kThreads / 32; ++warp) value = combine(value, shared[warp]);
  }
  return value;
}

struct Larger {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};
struct Sum {
  __device__ float operator()(float a, float b) const { return a + b; }
};

/// A row that registers do not hold: largest and sum in one pass, weights in a second.
template <typename Weight, int kThreads, typename Score>
__device__ void softmax_long(const Score& score, Weight* weights, int keys, int visible, float* shared) {
  constexpr int kAtOnce = 8;
  float largest = -FLT_MAX, sum = 0;
  for (int first = threadIdx.x; first < visible; first += kAtOnce * kThreads) {
    float values[kAtOnce];
    float here = largest;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      values[i] = score(first + i * kThreads);
      here = fmaxf(here, values[i]);
    }
    sum *= __expf(largest - here);
    largest = here;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i * kThreads < visible) sum += __expf(values[i] - largest);
    }
  }
  const float own = largest;
  largest = over_block<kThreads>(largest, shared, Larger());
  sum = over_block<kThreads>(sum * __expf(own - largest), shared, Sum());
  const float inverse = 1.0f / sum;
  // Weights end before or where the scores of their step end: a step's scores are read before anything is written.
  for (int first = threadIdx.x; first - static_cast<int>(threadIdx.x) < keys; first += kAtOnce * kThreads) {
    float values[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int key = first + i * kThreads;
      values[i] = key < visible ? __expf(score(key) - largest) * inverse : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i * kThreads < keys) put(weights, first + i * kThreads, values[i]);
    }
  }
}

/// NaN scores must come out as NaN: fmaxf drops them, the sum keeps them.
template <typename Weight, int kThreads, int kHeld>
__global__ void __launch_bounds__(kThreads, kThreads == 512 ? 2 : 1) softmax(SoftmaxRows rows) {
  __shared__ float shared[32];
  const std::int64_t query = blockIdx.x % rows.queries, head = blockIdx.x / rows.queries;
  float* scores = rows.scores + head * rows.head_stride + query * rows.row_stride;
  auto* weights = reinterpret_cast<Weight*>(scores);
  const float* bias =
      rows.bias == nullptr ? nullptr : rows.bias + head * rows.bias_head_stride + query * rows.bias_row_stride;
  const int keys = static_cast<int>(rows.keys);
  int visible = keys;
  if (rows.causal && rows.first_query + query + 1 < keys) visible = static_cast<int>(rows.first_query + query) + 1;
  const auto score = [&](int key) {
    if (key >= visible) return -FLT_MAX;
    return bias == nullptr ? scores[key] : scores[key] + bias[key];
  };
  if (keys > kThreads * kHeld) {
    softmax_long<Weight, kThreads>(score, weights, keys, visible, shared);
    return;
  }
  float values[kHeld];
  float largest = -FLT_MAX;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    values[i] = score(i * kThreads + static_cast<int>(threadIdx.x));
    largest = fmaxf(largest, values[i]);
  }
  largest = over_block<kThreads>(largest, shared, Larger());
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int key = i * kThreads + static_cast<int>(threadIdx.x);
    values[i] = key < visible ? __expf(values[i] - largest) : 0.0f;
    sum += values[i];
  }
  sum = over_block<kThreads>(sum, shared, Sum());
  const float inverse = 1.0f / sum;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int key = i * kThreads + static_cast<int>(threadIdx.x);
    if (key < keys) put(weights, key, values[i] * inverse);
  }
}

}  // namespace

void softmax_rows(ExecutionContext& context, const SoftmaxRows& rows) {
  const cudaStream_t stream = device::cuda::launch_stream(context);
  const auto blocks = static_cast<unsigned>(rows.heads * rows.queries);
  const auto launch = [&](auto weight) {
    using Weight = decltype(weight);
    if (rows.keys <= 128) {
      softmax<Weight, 32, 4><<<blocks, 32, 0, stream>>>(rows);
    } else if (rows.keys <= 1024) {
      softmax<Weight, 128, 8><<<blocks, 128, 0, stream>>>(rows);
    } else {
      softmax<Weight, 512, 32><<<blocks, 512, 0, stream>>>(rows);
    }
  };
  if (rows.weights == DType::kBF16) {
    launch(__nv_bfloat16{});
  } else {
    launch(float{});
  }
  device::cuda::check_launch("attention softmax");
}

}  // namespace octavo::ops
