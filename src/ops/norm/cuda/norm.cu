// The norms on a GPU.
//
// layer_norm, gate_residual_norm
//   Mapping: a row a block. Streams in bf16 of the widths of Large and Medium, modulated: five (three) warps, four
//     groups of four elements a lane (cuda/fixed_rows.cuh). Other rows: two vectors of eight elements a thread. The row
//     is read once and stays in registers: residual, mean, variance around the mean, outputs, largest value of a coded
//     output. Up to four reductions over the block, each with one barrier.
//   Bytes at [2, 4096, 2432] from bf16 to e4m3: gate_residual_norm 7 an element (x in and out, y in, codes out), 139
//     MB; layer_norm 3 an element, 60 MB; and 29 KB of vectors a batch row, which stay in the first-level cache,
//     because rows pass it by. 14 FLOPs an element: bound by memory.
// rms_norm: as the other rows.
//
// qkv_split_norm
//   Mapping: eight lanes a head of 64, a vector each, so that the sum of squares is three shuffles; a block moves 32
//     tokens of four neighbouring heads: 512 bytes together on the way in, 4 KB on the way out.
//   Bytes at [2, 4096, 3 * 2432] in bf16: 2 in and 2 out for each of q, k, v: 239 MB.
//
// Measured on an H100 80GB HBM3 (2026-11-25), where a copy reaches 2.80 TB/s, at those sizes: gate_residual_norm 55.6
// us (2.51 TB/s, 90 % of the copy), its residual alone 43.3 us (2.76, 99 %), layer_norm 30.3 us (1.97, 70 %; once a
// step), qkv_split_norm 100 us (2.44, 87 %; heads of 64 in bf16 have a quicker row of their own beside attention).
#include "ops/cuda/cuda_rows.h"
#include "ops/cuda/elements.cuh"
#include "ops/cuda/fixed_rows.cuh"
#include "ops/norm/norm.h"

namespace octavo::ops {
namespace {

using namespace octavo::ops::cuda;  // NOLINT: the helpers of all kernels

constexpr int kPerThread = 2;
constexpr int kMaxThreads = 512;
constexpr std::int64_t kMaxWidth = std::int64_t{kMaxThreads} * kPerThread * kVector;

/// An output of a norm: normal * (factor + one) + offset.
struct NormOut {
  Rows out, factor, offset;
  float one = 0.0f;
  float* scales = nullptr;             // of codes, a token each: to be measured
  const float* quant_scale = nullptr;  // of codes, one for all: given
};

struct NormArgs {
  Rows x, y, gate;
  NormOut outs[2];
  int out_count = 0;
  int tokens = 0, width = 0;
  float eps = 0.0f;
};

struct NoResidual {};

/// What the threads of a block hold of a row.
struct RowPart {
  float values[kPerThread][kVector];
  int begin[kPerThread];  // first element of each vector; beyond the row when the thread has none
};

template <bool kAligned>
__device__ void write_out(const NormOut& to, const RowPart& part, int width, int b, int t, int tokens, float mean,
                          float inverse, unsigned* shared) {
  float results[kPerThread][kVector];
  unsigned largest = 0;
  const bool measured = to.scales != nullptr, coded = measured || to.quant_scale != nullptr;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    if (part.begin[i] >= width) continue;
    float factor[kVector], offset[kVector];
    if (to.factor.defined()) {
      widen_vector(load_vector<kAligned, false>(to.factor.row<const float>(b, t), part.begin[i], width), factor);
      widen_vector(load_vector<kAligned, false>(to.offset.row<const float>(b, t), part.begin[i], width), offset);
    }
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      float value = __fmul_rn(__fsub_rn(part.values[i][j], mean), inverse);
      if (to.factor.defined()) value = fmaf(value, __fadd_rn(factor[j], to.one), offset[j]);
      if (coded) {
        value = kAligned || part.begin[i] + j < width ? rounded_to_bf16(value) : 0.0f;
        largest = max(largest, magnitude_bits(value));
      }
      results[i][j] = value;
    }
    if (!coded) store_floats<kAligned>(to.out.row(b, t), to.out.dtype, part.begin[i], width, results[i]);
  }
  if (!coded) return;
  float reciprocal;
  if (measured) {
    const float scale = dequant_scale_from(block_max(largest, shared), to.out.dtype);
    if (threadIdx.x == 0) to.scales[b * tokens + t] = scale;
    reciprocal = __frcp_rn(scale);
  } else {
    reciprocal = *to.quant_scale;
  }
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    if (part.begin[i] < width) {
      store_codes<kAligned>(to.out.row(b, t), to.out.dtype, part.begin[i], width, results[i], reciprocal);
    }
  }
}

/// Loads the thread's part of a row; with a residual adds it and writes the row back.
template <typename X, typename Y, bool kAligned>
__device__ RowPart load_row(const NormArgs& args, int b, int t) {
  constexpr bool kResidual = !std::is_same_v<Y, NoResidual>;
  RowPart part;
  X* row = args.x.row<X>(b, t);
  Vector<X> x[kPerThread];
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    part.begin[i] = static_cast<int>(threadIdx.x + i * blockDim.x) * kVector;
    if (part.begin[i] < args.width) x[i] = load_vector<kAligned, true>(row, part.begin[i], args.width);
  }
  if constexpr (kResidual) {
    Vector<Y> y[kPerThread];
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      if (part.begin[i] < args.width) {
        y[i] = load_vector<kAligned, true>(args.y.row<const Y>(b, t), part.begin[i], args.width);
      }
    }
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      if (part.begin[i] >= args.width) continue;
      const Vector<float> gate =
          load_vector<kAligned, false>(args.gate.row<const float>(b, t), part.begin[i], args.width);
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        x[i].elements[j] = narrow<X>(fmaf(gate.elements[j], widen(y[i].elements[j]), widen(x[i].elements[j])));
      }
      store_vector<kAligned, true>(row, part.begin[i], args.width, x[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    if (part.begin[i] < args.width) {
      widen_vector(x[i], part.values[i]);
    } else {
#pragma unroll
      for (int j = 0; j < kVector; ++j) part.values[i][j] = 0.0f;
    }
  }
  return part;
}

template <typename X, typename Y, bool kAligned>
__global__ void __launch_bounds__(kMaxThreads) residual_norm_kernel(const __grid_constant__ NormArgs args) {
  __shared__ float sums[2][32];
  __shared__ unsigned largest[2][32];
  const int b = static_cast<int>(blockIdx.x) / args.tokens;
  const int t = static_cast<int>(blockIdx.x) % args.tokens;
  const RowPart part = load_row<X, Y, kAligned>(args, b, t);
  if (args.out_count == 0) return;
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
#pragma unroll
    for (int j = 0; j < kVector; ++j) sum += part.values[i][j];
  }
  const float mean = __fdiv_rn(block_sum(sum, sums[0]), static_cast<float>(args.width));
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      const float centred = __fsub_rn(part.values[i][j], mean);
      if (part.begin[i] + (kAligned ? 0 : j) < args.width) squares = fmaf(centred, centred, squares);
    }
  }
  const float variance = __fdiv_rn(block_sum(squares, sums[1]), static_cast<float>(args.width));
  const float inverse = __frsqrt_rn(__fadd_rn(variance, args.eps));
  write_out<kAligned>(args.outs[0], part, args.width, b, t, args.tokens, mean, inverse, largest[0]);
  if (args.out_count > 1) {
    write_out<kAligned>(args.outs[1], part, args.width, b, t, args.tokens, mean, inverse, largest[1]);
  }
}

template <bool kAligned>
__global__ void __launch_bounds__(kMaxThreads) rms_norm_kernel(const __grid_constant__ NormArgs args) {
  __shared__ float sums[32];
  const int b = static_cast<int>(blockIdx.x) / args.tokens;
  const int t = static_cast<int>(blockIdx.x) % args.tokens;
  const RowPart part = load_row<float, NoResidual, kAligned>(args, b, t);
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
#pragma unroll
    for (int j = 0; j < kVector; ++j) squares = fmaf(part.values[i][j], part.values[i][j], squares);
  }
  const float mean = __fdiv_rn(block_sum(squares, sums), static_cast<float>(args.width));
  const float inverse = __frsqrt_rn(__fadd_rn(mean, args.eps));
  const NormOut& to = args.outs[0];
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    if (part.begin[i] >= args.width) continue;
    const Vector<float> weight =
        load_vector<kAligned, false>(to.factor.row<const float>(b, t), part.begin[i], args.width);
    float results[kVector];
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      results[j] = __fmul_rn(__fmul_rn(part.values[i][j], inverse), weight.elements[j]);
    }
    store_floats<kAligned>(to.out.row(b, t), to.out.dtype, part.begin[i], args.width, results);
  }
}

template <int kWidth>
__device__ inline void write_out(const NormOut& to, const FixedRow<kWidth>& x, int b, int t, int tokens, float mean,
                                 float inverse, unsigned* shared) {
  using Row = FixedRow<kWidth>;
  const float* factor_row = to.factor.row<const float>(b, t);
  const float* offset_row = to.offset.row<const float>(b, t);
  Row results;
#pragma unroll
  for (int g = 0; g < Row::kGroups; ++g) {
    if (!Row::has(g)) continue;
    const float4 factor = *reinterpret_cast<const float4*>(factor_row + Row::begin(g));
    const float4 offset = *reinterpret_cast<const float4*>(offset_row + Row::begin(g));
    const float4 value = x.values(g);
    const auto modulated = [&](float element, float scale, float shift) {
      return fmaf(__fmul_rn(__fsub_rn(element, mean), inverse), __fadd_rn(scale, to.one), shift);
    };
    results.set(g, make_float4(modulated(value.x, factor.x, offset.x), modulated(value.y, factor.y, offset.y),
                               modulated(value.z, factor.z, offset.z), modulated(value.w, factor.w, offset.w)));
  }
  float reciprocal;
  if (to.scales != nullptr) {
    const float scale = results.measure(to.out.dtype, shared);
    if (threadIdx.x == 0) to.scales[b * tokens + t] = scale;
    reciprocal = __frcp_rn(scale);
  } else if (to.quant_scale != nullptr) {
    reciprocal = *to.quant_scale;
  } else {
    results.store(to.out.row<BF16>(b, t));
    return;
  }
  results.store_codes(to.out.dtype, to.out.row<std::uint8_t>(b, t), reciprocal);
}

template <int kWidth, bool kResidual>
__global__ void __launch_bounds__(FixedRow<kWidth>::kThreads, FixedRow<kWidth>::kBlocks)
    fixed_norm_kernel(const __grid_constant__ NormArgs args) {
  using Row = FixedRow<kWidth>;
  __shared__ float sums[2][Row::kWarps];
  __shared__ unsigned largest[2][Row::kWarps];
  const int b = static_cast<int>(blockIdx.x) / args.tokens;
  const int t = static_cast<int>(blockIdx.x) % args.tokens;
  BF16* x_row = args.x.row<BF16>(b, t);
  Row x;
  x.load(x_row);
  if constexpr (kResidual) {
    const float* gate_row = args.gate.row<const float>(b, t);
    Row y;
    y.load(args.y.row<const BF16>(b, t));
#pragma unroll
    for (int g = 0; g < Row::kGroups; ++g) {
      if (!Row::has(g)) continue;
      const float4 gate = *reinterpret_cast<const float4*>(gate_row + Row::begin(g));
      const float4 from = x.values(g), update = y.values(g);
      x.set(g, make_float4(fmaf(gate.x, update.x, from.x), fmaf(gate.y, update.y, from.y),
                           fmaf(gate.z, update.z, from.z), fmaf(gate.w, update.w, from.w)));
      __stcs(reinterpret_cast<uint2*>(x_row + Row::begin(g)), *reinterpret_cast<const uint2*>(x.pairs[g]));
    }
  }
  if (args.out_count == 0) return;
  constexpr float kShare = 1.0f / kWidth;
  const float mean =
      __fmul_rn(x.sum([](float value, float so_far) { return __fadd_rn(so_far, value); }, sums[0]), kShare);
  const float squares = x.sum(
      [mean](float value, float so_far) {
        const float centred = __fsub_rn(value, mean);
        return fmaf(centred, centred, so_far);
      },
      sums[1]);
  const float inverse = __frsqrt_rn(fmaf(squares, kShare, args.eps));
  write_out<kWidth>(args.outs[0], x, b, t, args.tokens, mean, inverse, largest[0]);
  if (args.out_count > 1) write_out<kWidth>(args.outs[1], x, b, t, args.tokens, mean, inverse, largest[1]);
}

NormOut norm_out(const TensorView& out, const TensorView& scales, const TensorView& quant_scale,
                 const TensorView& factor, const TensorView& offset, float one) {
  NormOut to;
  to.out = rows_of(out);
  to.factor = vectors_of(factor);
  to.offset = vectors_of(offset);
  to.one = one;
  if (scales.defined()) to.scales = scales.f32();
  if (quant_scale.defined()) to.quant_scale = quant_scale.f32();
  return to;
}

/// A norm's width is held in registers.
template <typename Args>
bool fits(const Args& args, const DeviceTraits&) {
  return args.x.dim(2) <= kMaxWidth;
}

/// Fills in what all norms have, and launches `kernel` on as many blocks as there are rows.
template <typename Kernel>
void launch(ExecutionContext& context, NormArgs& norm, const TensorView& x, float eps, int threads, const char* name,
            Kernel kernel) {
  const std::int64_t rows = x.dim(0) * x.dim(1);
  if (rows == 0 || x.dim(2) == 0) return;
  norm.x = rows_of(x);
  norm.tokens = static_cast<int>(x.dim(1));
  norm.width = static_cast<int>(x.dim(2));
  norm.eps = eps;
  kernel<<<static_cast<unsigned>(rows), static_cast<unsigned>(threads), 0, device::cuda::launch_stream(context)>>>(
      norm);
  device::cuda::check_launch(name);
}

/// Modulated, into bf16 or codes: what fixed_norm_kernel writes.
bool takes_fixed_rows(const NormArgs& norm) {
  for (int i = 0; i < norm.out_count; ++i) {
    if (norm.outs[i].out.dtype == DType::kF32 || !norm.outs[i].factor.defined()) return false;
  }
  return true;
}

template <typename Y>
void launch_residual_norm(ExecutionContext& context, NormArgs& norm, const TensorView& x, float eps, bool aligned,
                          const char* name) {
  constexpr bool kResidual = !std::is_same_v<Y, NoResidual>;
  const bool fixed = x.dtype() == DType::kBF16 && !std::is_same_v<Y, float> && aligned && takes_fixed_rows(norm);
  const int threads = threads_for(x.dim(2), kPerThread);
  if (fixed && x.dim(2) == 2432) {
    launch(context, norm, x, eps, FixedRow<2432>::kThreads, name, fixed_norm_kernel<2432, kResidual>);
  } else if (fixed && x.dim(2) == 1536) {
    launch(context, norm, x, eps, FixedRow<1536>::kThreads, name, fixed_norm_kernel<1536, kResidual>);
  } else if (x.dtype() == DType::kBF16) {
    launch(context, norm, x, eps, threads, name,
           aligned ? residual_norm_kernel<BF16, Y, true> : residual_norm_kernel<BF16, Y, false>);
  } else {
    launch(context, norm, x, eps, threads, name,
           aligned ? residual_norm_kernel<float, Y, true> : residual_norm_kernel<float, Y, false>);
  }
}

bool second_in_vectors(const SecondModulation& second) {
  return in_vectors(second.out) && in_vectors(second.scale) && in_vectors(second.shift);
}

void add_second(NormArgs& norm, const SecondModulation& second) {
  if (!second.defined()) return;
  norm.outs[norm.out_count++] =
      norm_out(second.out, second.dequant_scale, second.quant_scale, second.scale, second.shift, 1.0f);
}

void layer_norm_cuda(ExecutionContext& context, const LayerNormArgs& args, void*) {
  const bool affine = args.weight.defined();
  NormArgs norm;
  norm.outs[norm.out_count++] =
      norm_out(args.out, args.out_dequant_scale, args.out_quant_scale, affine ? args.weight : args.scale,
               affine ? args.bias : args.shift, affine ? 0.0f : 1.0f);
  add_second(norm, args.second);
  const bool aligned = in_vectors(args.x) && in_vectors(args.out) && in_vectors(args.weight) && in_vectors(args.bias) &&
                       in_vectors(args.scale) && in_vectors(args.shift) && second_in_vectors(args.second);
  launch_residual_norm<NoResidual>(context, norm, args.x, args.eps, aligned, "layer_norm");
}

void gate_residual_norm_cuda(ExecutionContext& context, const GateResidualNormArgs& args, void*) {
  NormArgs norm;
  norm.y = rows_of(args.y);
  norm.gate = vectors_of(args.gate);
  if (args.out.defined()) {
    norm.outs[norm.out_count++] =
        norm_out(args.out, args.out_dequant_scale, args.out_quant_scale, args.scale, args.shift, 1.0f);
  }
  add_second(norm, args.second);
  const bool aligned = in_vectors(args.x) && in_vectors(args.y) && in_vectors(args.gate) && in_vectors(args.out) &&
                       in_vectors(args.scale) && in_vectors(args.shift) && second_in_vectors(args.second);
  constexpr const char* kName = "gate_residual_norm";
  if (args.y.dtype() == DType::kBF16) {
    launch_residual_norm<BF16>(context, norm, args.x, args.eps, aligned, kName);
  } else {
    launch_residual_norm<float>(context, norm, args.x, args.eps, aligned, kName);
  }
}

void rms_norm_cuda(ExecutionContext& context, const RmsNormArgs& args, void*) {
  NormArgs norm;
  norm.outs[norm.out_count++] = norm_out(args.out, {}, {}, args.weight, {}, 0.0f);
  const bool aligned = in_vectors(args.x) && in_vectors(args.out) && in_vectors(args.weight);
  launch(context, norm, args.x, args.eps, threads_for(args.x.dim(2), kPerThread), "rms_norm",
         aligned ? rms_norm_kernel<true> : rms_norm_kernel<false>);
}

// --- qkv_split_norm ---

struct HeadRows {
  char* data = nullptr;
  std::int64_t batch_stride = 0, head_stride = 0, token_stride = 0;  // bytes
  const float* weight = nullptr;                                     // null = no norm
};

struct SplitArgs {
  Rows qkv;
  HeadRows parts[3];
  int part_count = 0;
  int tokens = 0, heads = 0, width = 0;
  int lanes = 0;   // a power of two; together they hold a head, or a piece of one
  int pieces = 1;  // of a head that is wider than a warp's vectors (the autoencoder's 512, which has no norm)
  float eps = 0.0f;
};

constexpr int kSplitThreads = 256;
constexpr int kHeadsPerThread = 4;

/// The lanes of a group hold a piece of a head of one token, a vector each.
template <typename In, typename Out, bool kAligned, int kLanes>
__global__ void __launch_bounds__(kSplitThreads) split_heads_kernel(const __grid_constant__ SplitArgs args) {
  const int lanes = kLanes > 0 ? kLanes : args.lanes;
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const int t = static_cast<int>(blockIdx.x) * (kSplitThreads / lanes) + static_cast<int>(threadIdx.x) / lanes;
  const int pieces = kLanes > 0 ? 1 : args.pieces;
  const int first = static_cast<int>(blockIdx.y) * kHeadsPerThread;  // among the pieces of all parts
  const int b = static_cast<int>(blockIdx.z);
  const int width = kLanes > 0 ? kLanes * kVector : args.width;
  const int count = min(kHeadsPerThread, args.part_count * args.heads * pieces - first);
  Vector<In> x[kHeadsPerThread];
  int begin[kHeadsPerThread];  // in its head
  bool active[kHeadsPerThread];
  const In* row = args.qkv.row<const In>(b, min(t, args.tokens - 1));
#pragma unroll
  for (int i = 0; i < kHeadsPerThread; ++i) {
    begin[i] = ((first + i) % pieces * lanes + lane) * kVector;
    active[i] = t < args.tokens && i < count && begin[i] < width;
    if (active[i]) {
      x[i] =
          load_vector<kAligned, true>(row + static_cast<std::int64_t>((first + i) / pieces) * width, begin[i], width);
    }
  }
#pragma unroll
  for (int i = 0; i < kHeadsPerThread; ++i) {
    if (i >= count) continue;  // of the whole block
    const HeadRows& part = args.parts[(first + i) / pieces / args.heads];
    const int h = (first + i) / pieces % args.heads;
    float values[kVector];
#pragma unroll
    for (int j = 0; j < kVector; ++j) values[j] = active[i] ? widen(x[i].elements[j]) : 0.0f;
    if (part.weight != nullptr) {
      float squares = 0.0f;
#pragma unroll
      for (int j = 0; j < kVector; ++j) squares = fmaf(values[j], values[j], squares);
      for (int offset = lanes / 2; offset > 0; offset /= 2) squares += __shfl_xor_sync(0xFFFFFFFFu, squares, offset);
      const float mean = __fdiv_rn(squares, static_cast<float>(width));
      const float inverse = __frsqrt_rn(__fadd_rn(mean, args.eps));
      if (active[i]) {
        const Vector<float> weight = load_vector<kAligned, false>(part.weight, begin[i], width);
#pragma unroll
        for (int j = 0; j < kVector; ++j) values[j] = __fmul_rn(__fmul_rn(values[j], inverse), weight.elements[j]);
      }
    }
    if (!active[i]) continue;
    auto* out =
        reinterpret_cast<Out*>(part.data + b * part.batch_stride + h * part.head_stride + t * part.token_stride);
    store_vector<kAligned, false>(out, begin[i], width, narrow_vector<Out>(values));
  }
}

constexpr int kMaxPieceWidth = 32 * kVector;

bool split_supports(const QkvSplitNormArgs& args, const DeviceTraits&) {
  const DType out = args.k.dtype();
  const bool normed = args.q_weight.defined() || args.k_weight.defined();
  const bool one_type = args.v.dtype() == out && (!args.q.defined() || args.q.dtype() == out);
  return one_type && (out == DType::kF32 || out == DType::kBF16) && args.q_factor == 1.0f && args.k_factor == 1.0f &&
         (args.k.dim(3) <= kMaxPieceWidth || !normed);
}

HeadRows head_rows(const TensorView& view, const TensorView& weight) {
  const auto size = static_cast<std::int64_t>(dtype_size(view.dtype()));
  HeadRows rows;
  rows.data = static_cast<char*>(view.data());
  rows.batch_stride = view.stride(0) * size;
  rows.head_stride = view.stride(1) * size;
  rows.token_stride = view.stride(2) * size;
  if (weight.defined()) rows.weight = weight.f32();
  return rows;
}

template <typename In, typename Out>
void launch_split(ExecutionContext& context, const SplitArgs& split, std::int64_t batch, bool aligned) {
  const int tokens_per_block = kSplitThreads / split.lanes;
  const int units = split.part_count * split.heads * split.pieces;
  const dim3 grid(static_cast<unsigned>((split.tokens + tokens_per_block - 1) / tokens_per_block),
                  static_cast<unsigned>((units + kHeadsPerThread - 1) / kHeadsPerThread), static_cast<unsigned>(batch));
  const auto kernel = !aligned            ? split_heads_kernel<In, Out, false, 0>
                      : split.width == 64 ? split_heads_kernel<In, Out, true, 8>
                                          : split_heads_kernel<In, Out, true, 0>;
  kernel<<<grid, kSplitThreads, 0, device::cuda::launch_stream(context)>>>(split);
  device::cuda::check_launch("qkv_split_norm");
}

void qkv_split_norm_cuda(ExecutionContext& context, const QkvSplitNormArgs& args, void*) {
  if (args.k.element_count() == 0) return;
  SplitArgs split;
  split.qkv = rows_of(args.qkv);
  bool aligned = in_vectors(args.qkv) && in_vectors(args.q_weight) && in_vectors(args.k_weight);
  const auto add = [&](const TensorView& part, const TensorView& weight) {
    split.parts[split.part_count++] = head_rows(part, weight);
    aligned = aligned && in_vectors(part);
  };
  if (args.q.defined()) add(args.q, args.q_weight);
  add(args.k, args.k_weight);
  add(args.v, {});
  split.tokens = static_cast<int>(args.k.dim(2));
  split.heads = static_cast<int>(args.k.dim(1));
  split.width = static_cast<int>(args.k.dim(3));
  split.eps = args.eps;
  split.lanes = 1;
  while (split.lanes < 32 && split.lanes * kVector < split.width) split.lanes *= 2;
  split.pieces = (split.width + kMaxPieceWidth - 1) / kMaxPieceWidth;
  const std::int64_t batch = args.k.dim(0);
  const bool from_bf16 = args.qkv.dtype() == DType::kBF16, to_bf16 = args.k.dtype() == DType::kBF16;
  if (from_bf16 && to_bf16) {
    launch_split<BF16, BF16>(context, split, batch, aligned);
  } else if (from_bf16) {
    launch_split<BF16, float>(context, split, batch, aligned);
  } else if (to_bf16) {
    launch_split<float, BF16>(context, split, batch, aligned);
  } else {
    launch_split<float, float>(context, split, batch, aligned);
  }
}

}  // namespace

void add_norm_cuda_rows() {
  static constexpr KernelRow<LayerNormArgs> kLayerNorm[] = {
      {.name = "cuda", .device = DeviceKind::kCuda, .supports = fits<LayerNormArgs>, .run = layer_norm_cuda}};
  static constexpr KernelRow<GateResidualNormArgs> kGateResidualNorm[] = {{.name = "cuda",
                                                                           .device = DeviceKind::kCuda,
                                                                           .supports = fits<GateResidualNormArgs>,
                                                                           .run = gate_residual_norm_cuda}};
  static constexpr KernelRow<RmsNormArgs> kRmsNorm[] = {
      {.name = "cuda", .device = DeviceKind::kCuda, .supports = fits<RmsNormArgs>, .run = rms_norm_cuda}};
  static constexpr KernelRow<QkvSplitNormArgs> kSplit[] = {
      {.name = "cuda", .device = DeviceKind::kCuda, .supports = split_supports, .run = qkv_split_norm_cuda}};
  layer_norm_table().add_rows(kLayerNorm);
  gate_residual_norm_table().add_rows(kGateResidualNorm);
  rms_norm_table().add_rows(kRmsNorm);
  qkv_split_norm_table().add_rows(kSplit);
}

}  // namespace octavo::ops
