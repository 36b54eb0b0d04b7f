// attention as two products of cuBLASLt and a softmax between them: any head width, bias, causal mask, f32 or bf16.
//
// For heads that the fused kernels do not have (the autoencoder's one head of 512, where this is three times as fast as
// cuDNN's own) and for what they do not compute (T5's bias, CLIP's mask). Scores are f32; a chunk of queries at a time
// passes through scratch, so that they take some kScoreBytes and not S x S. bf16 weights of the softmax are rounded
// once before their product with v.
#include <algorithm>
#include <array>
#include <compare>
#include <limits>
#include <map>
#include <vector>

#include "base/guarded.h"
#include "device/cuda/cuda_device.h"
#include "ops/attention/attention_kernels.h"
#include "ops/attention/cuda/attention_rows.h"

namespace octavo::ops {
namespace {

using device::cuda::check;
using device::cuda::CudaDevice;

constexpr std::int64_t kScoreBytes = std::int64_t{256} << 20;
constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;

/// A batch of products of matrices in rows: out [rows, columns] = factor * a [rows, inner] * b, where b is
/// [columns, inner] (transposed) or [inner, columns].
struct Product {
  cudaDataType_t type = CUDA_R_32F, out_type = CUDA_R_32F;
  bool transposed = false;  // b
  std::int64_t rows = 0, columns = 0, inner = 0, batch = 0;
  std::int64_t a_row = 0, b_row = 0, out_row = 0;        // strides, in elements
  std::int64_t a_batch = 0, b_batch = 0, out_batch = 0;  // likewise
  std::int64_t alignment = 16;                           // bytes, of every matrix
  std::strong_ordering operator<=>(const Product&) const = default;
};

/// cuBLASLt's description of a product; it thinks in columns, so its A is our b and its B our a.
class Description {
 public:
  explicit Description(const Product& product) {
    check(cublasLtMatmulDescInit(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescInit");
    const cublasOperation_t b_operation = product.transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    check(cublasLtMatmulDescSetAttribute(&operation, CUBLASLT_MATMUL_DESC_TRANSA, &b_operation, sizeof b_operation),
          "cublasLtMatmulDescSetAttribute");
    lay_out(a, product.type, product.inner, product.rows, product.a_row, product.batch, product.a_batch);
    if (product.transposed) {
      lay_out(b, product.type, product.inner, product.columns, product.b_row, product.batch, product.b_batch);
    } else {
      lay_out(b, product.type, product.columns, product.inner, product.b_row, product.batch, product.b_batch);
    }
    lay_out(out, product.out_type, product.columns, product.rows, product.out_row, product.batch, product.out_batch);
  }
  cublasLtMatmulDescOpaque_t operation{};
  cublasLtMatrixLayoutOpaque_t a{}, b{}, out{};

 private:
  static void lay_out(cublasLtMatrixLayoutOpaque_t& layout, cudaDataType_t type, std::int64_t rows,
                      std::int64_t columns, std::int64_t stride, std::int64_t batch, std::int64_t batch_stride) {
    check(cublasLtMatrixLayoutInit(&layout, type, static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(columns),
                                   stride),
          "cublasLtMatrixLayoutInit");
    const auto count = static_cast<std::int32_t>(batch);
    check(cublasLtMatrixLayoutSetAttribute(&layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count),
          "cublasLtMatrixLayoutSetAttribute");
    check(cublasLtMatrixLayoutSetAttribute(&layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &batch_stride,
                                           sizeof batch_stride),
          "cublasLtMatrixLayoutSetAttribute");
  }
};

/// cuBLASLt's first choice without timing: the same bits in every process.
cublasLtMatmulAlgo_t algorithm_for(CudaDevice& device, const Product& product, Description& description) {
  static Guarded<std::map<Product, cublasLtMatmulAlgo_t>> cache;
  auto known = cache.lock();
  if (const auto found = known->find(product); found != known->end()) return found->second;
  cublasLtMatmulPreferenceOpaque_t preference{};
  check(cublasLtMatmulPreferenceInit(&preference), "cublasLtMatmulPreferenceInit");
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    check(cublasLtMatmulPreferenceSetAttribute(&preference, attribute, &value, sizeof value),
          "cublasLtMatmulPreferenceSetAttribute");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
  // Partial sums of a split K stay in f32 whatever the output is.
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
         static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  const auto alignment = static_cast<std::uint32_t>(product.alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment);
  cublasLtMatmulHeuristicResult_t result{};
  int count = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(device.lt(), &description.operation, &description.b, &description.a,
                                     &description.out, &description.out, &preference, 1, &result, &count);
  OCTAVO_CHECK(status == CUBLAS_STATUS_SUCCESS && count == 1,
               "op attention: cuBLASLt has no product for {} x {} x {}, {} of them ({})", product.rows, product.columns,
               product.inner, product.batch, cublasLtGetStatusName(status));
  known->emplace(product, result.algo);
  return result.algo;
}

void multiply(ExecutionContext& context, const Product& product, float factor, const void* a, const void* b, void* out,
              void* workspace) {
  CudaDevice& device = device::cuda::device_of(context);
  Description description(product);
  const cublasLtMatmulAlgo_t algorithm = algorithm_for(device, product, description);
  const float zero = 0;
  check(cublasLtMatmul(device.lt(), &description.operation, &factor, b, &description.b, a, &description.a, &zero, out,
                       &description.out, out, &description.out, &algorithm, workspace, kWorkspaceBytes,
                       device::cuda::stream_of(context)),
        "cublasLtMatmul");
}

cudaDataType_t cuda_type(DType dtype) { return dtype == DType::kBF16 ? CUDA_R_16BF : CUDA_R_32F; }

void* offset(const TensorView& view, std::int64_t elements) {
  return static_cast<std::byte*>(view.data()) + elements * static_cast<std::int64_t>(dtype_size(view.dtype()));
}

/// The largest of 16, 8, 4, 2 bytes that divides where every matrix of `view` and its rows begin.
std::int64_t alignment_of(const TensorView& view) {
  // The innermost extent too: heads of out lie beside each other.
  auto all = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(view.data())) | 16;
  const auto element = static_cast<std::int64_t>(dtype_size(view.dtype()));
  for (int axis = 0; axis + 1 < view.rank(); ++axis) all |= view.stride(axis) * element;
  all |= view.dim(view.rank() - 1) * element;
  return all & -all;
}

struct Plan {
  std::int64_t score_row = 0;  // f32 elements
  std::int64_t chunk = 0;      // queries
  std::size_t score_bytes = 0;
};

Plan plan_of(const AttentionArgs& args) {
  constexpr std::int64_t kRowUnit = 8, kChunkUnit = 64;
  constexpr std::int64_t kLeastRows = 2048;  // of all heads together: fewer leave the second product half idle
  Plan plan;
  plan.score_row = (args.k.dim(2) + kRowUnit - 1) / kRowUnit * kRowUnit;
  const std::int64_t row_bytes = args.q.dim(1) * plan.score_row * static_cast<std::int64_t>(sizeof(float));
  plan.chunk = std::max(kScoreBytes / row_bytes, kLeastRows / args.q.dim(1)) / kChunkUnit * kChunkUnit;
  plan.chunk = std::max(plan.chunk, kChunkUnit);
  plan.chunk = std::min(plan.chunk, args.q.dim(2));
  plan.score_bytes = static_cast<std::size_t>(plan.chunk * row_bytes);
  return plan;
}

}  // namespace

bool attention_unfused_supports(const AttentionArgs& args, const DeviceTraits&) {
  return has_plain_result(args) &&
         (args.q.dtype() == DType::kBF16 || (args.q.dtype() == DType::kF32 && args.out.dtype() == DType::kF32));
}

std::size_t attention_unfused_scratch_bytes(const ExecutionContext&, const AttentionArgs& args) {
  return (plan_of(args).score_bytes + 255) / 256 * 256 + kWorkspaceBytes;
}

void attention_unfused(ExecutionContext& context, const AttentionArgs& args, void* scratch) {
  const Plan plan = plan_of(args);
  auto* scores = static_cast<float*>(scratch);
  void* workspace = static_cast<std::byte*>(scratch) + (plan.score_bytes + 255) / 256 * 256;
  const std::int64_t heads = args.q.dim(1), queries = args.q.dim(2), keys = args.k.dim(2), width = args.q.dim(3);
  const bool bf16 = args.q.dtype() == DType::kBF16;
  const TensorView out_heads =
      args.out.slice(2, 0, width);  // the first; the others begin multiples of its width behind
  for (std::int64_t b = 0; b < args.q.dim(0); ++b) {
    for (std::int64_t first = 0; first < queries; first += plan.chunk) {
      const std::int64_t rows = std::min(plan.chunk, queries - first);
      const std::int64_t head_stride = rows * plan.score_row;
      const Product to_scores{.type = cuda_type(args.q.dtype()),
                              .out_type = CUDA_R_32F,
                              .transposed = true,
                              .rows = rows,
                              .columns = keys,
                              .inner = width,
                              .batch = heads,
                              .a_row = args.q.stride(2),
                              .b_row = args.k.stride(2),
                              .out_row = plan.score_row,
                              .a_batch = args.q.stride(1),
                              .b_batch = args.k.stride(1),
                              .out_batch = head_stride,
                              .alignment = std::min(alignment_of(args.q), alignment_of(args.k))};
      multiply(context, to_scores, args.score_factor, offset(args.q, b * args.q.stride(0) + first * args.q.stride(2)),
               offset(args.k, b * args.k.stride(0)), scores, workspace);
      SoftmaxRows softmax{.scores = scores,
                          .row_stride = plan.score_row,
                          .head_stride = head_stride,
                          .heads = heads,
                          .queries = rows,
                          .keys = keys,
                          .first_query = first,
                          .causal = args.causal,
                          .weights = args.q.dtype()};
      if (args.bias.defined()) {
        softmax.bias = args.bias.f32() + first * args.bias.stride(1);
        softmax.bias_row_stride = args.bias.stride(1);
        softmax.bias_head_stride = args.bias.stride(0);
      }
      softmax_rows(context, softmax);
      // Weights of bf16 fill the first half of each row of scores.
      const std::int64_t narrow = bf16 ? 2 : 1;
      const Product to_out{.type = cuda_type(args.v.dtype()),
                           .out_type = cuda_type(args.out.dtype()),
                           .transposed = false,
                           .rows = rows,
                           .columns = width,
                           .inner = keys,
                           .batch = heads,
                           .a_row = narrow * plan.score_row,
                           .b_row = args.v.stride(2),
                           .out_row = args.out.stride(1),
                           .a_batch = narrow * head_stride,
                           .b_batch = args.v.stride(1),
                           .out_batch = width,
                           .alignment = std::min(alignment_of(args.v), alignment_of(out_heads))};
      multiply(context, to_out, 1.0f, scores, offset(args.v, b * args.v.stride(0)),
               offset(args.out, b * args.out.stride(0) + first * args.out.stride(1)), workspace);
    }
  }
}

}  // namespace octavo::ops
