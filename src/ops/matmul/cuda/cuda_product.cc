#include "ops/matmul/cuda/cuda_product.h"

#include <algorithm>
#include <utility>

#include "ops/matmul/cuda/lt_product.h"
#include "ops/matmul/cuda/product_kernels.h"
#include "ops/matmul/matmul_kernels.h"

namespace octavo::ops {
namespace {

using device::cuda::CudaDevice;
static_assert(ConvertWork::kBlock == kScaleBlock);

/// Of f32 scratch between product and epilogue; more rows come in chunks. Large enough to fill the GPU.
constexpr std::int64_t kMostSumBytes = std::int64_t{64} << 20;
constexpr std::int64_t kChunkGranule = 256;

constexpr std::int64_t round_up(std::int64_t value, std::int64_t to) { return (value + to - 1) / to * to; }
std::size_t aligned(std::int64_t bytes) { return static_cast<std::size_t>(round_up(bytes, 256)); }

cudaDataType lt_type(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return CUDA_R_32F;
    case DType::kF16:
      return CUDA_R_16F;
    case DType::kBF16:
      return CUDA_R_16BF;
    case DType::kE4M3:
      return CUDA_R_8F_E4M3;
    case DType::kE5M2:
      return CUDA_R_8F_E5M2;
    case DType::kI8:
      return CUDA_R_8I;
    case DType::kI32:
      return CUDA_R_32I;
  }
  return CUDA_R_32F;
}

std::int64_t address(const void* pointer) {
  return static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(pointer));
}
std::int64_t size_of(DType dtype) { return static_cast<std::int64_t>(dtype_size(dtype)); }

/// The view as [B * T, N] rows of one stride, or as B groups of T rows.
struct Groups {
  std::int64_t count = 1, rows = 0, stride = 0, group_stride = 0;
};
Groups groups_of(const TensorView& view) {
  if (view.rank() == 2) return {1, view.dim(0), view.stride(0), 0};
  const std::int64_t batch = view.dim(0), tokens = view.dim(1);
  if (batch == 1) return {1, tokens, view.stride(1), 0};
  if (tokens == 1) return {1, batch, view.stride(0), 0};
  if (view.stride(0) == tokens * view.stride(1)) return {1, batch * tokens, view.stride(1), 0};
  return {batch, tokens, view.stride(1), view.stride(0)};
}

/// Of the rows of all that a product reads and writes beside its weight.
std::int64_t groups_of(const CudaProduct& product) {
  std::int64_t groups = std::max(groups_of(product.x.codes).count, groups_of(product.out).count);
  if (product.epilogue.residual.defined()) groups = std::max(groups, groups_of(product.epilogue.residual).count);
  return groups;
}

/// Rows start where 16 bytes may be read at a time. A measuring arena's views (address 0) count as aligned.
bool rows_are_aligned(const TensorView& view) {
  const std::int64_t size = size_of(view.dtype());
  bool good = address(view.data()) % 16 == 0;
  for (int axis = 0; axis + 1 < view.rank(); ++axis) {
    good = good && (view.dim(axis) == 1 || view.stride(axis) * size % 16 == 0);
  }
  return good;
}

bool is_float8(DType dtype) { return dtype == DType::kE4M3 || dtype == DType::kE5M2; }

/// How one call is done, from its arguments and the architecture alone.
struct Plan {
  DType x_type = DType::kBF16, weight_type = DType::kBF16;  // of the factors
  int x_parts = 1, weight_parts = 1;
  bool converts_x = false, converts_weight = false;
  bool scales_x_apart = false;                       // the conversion brings rows near 2^14 and notes by how much
  bool x_by_block = false, weight_by_block = false;  // scales are multiplied in by the conversion
  bool row_scales = false, column_scales = false;    // left to the epilogue
  bool direct = false;                               // cuBLASLt writes out
  bool certain = false;                              // and surely has an algorithm
  LtScaling scaling = LtScaling::kNone;
  bool fills_row_scales = false;  // x's one scale is written out for every row

  std::int64_t rows = 0, width = 0, inner = 0;
  std::int64_t x_stride = 0, weight_stride = 0, sum_stride = 0;  // of converted factors and of sums
  std::int64_t chunk_rows = 0;
  // Scratch, in this order, after cuBLASLt's workspace.
  std::size_t row_scale_bytes = 0, x_bytes = 0, weight_bytes = 0, sum_bytes = 0, extra_bytes = 0;
  std::size_t outlier_x_bytes = 0, outlier_weight_bytes = 0;
  std::size_t total() const {
    return kLtWorkspaceBytes + row_scale_bytes + x_bytes + weight_bytes + sum_bytes + extra_bytes + outlier_x_bytes +
           outlier_weight_bytes;
  }
};

/// What cuBLASLt multiplies.
void plan_factors(const CudaProduct& product, int architecture, Plan& plan) {
  const TensorView& x = product.x.codes;
  const TensorView& weight = product.weight.codes;
  const bool x_coded = is_quantized(x.dtype()), weight_coded = is_quantized(weight.dtype());
  plan.x_by_block = x_coded && product.x.grain == ScaleGrain::kBlock128;
  plan.weight_by_block = weight_coded && product.weight.grain == ScaleGrain::kBlock128;
  plan.row_scales = x_coded && !plan.x_by_block;
  plan.column_scales = weight_coded && !plan.weight_by_block;
  if (x_coded && weight_coded && !plan.x_by_block && !plan.weight_by_block && plan.inner % 16 == 0 &&
      plan.width % 16 == 0 && rows_are_aligned(x) && rows_are_aligned(weight)) {
    const bool floats = architecture >= 89 && !product.widens_codes && is_float8(x.dtype()) &&
                        is_float8(weight.dtype()) && (x.dtype() == DType::kE4M3 || weight.dtype() == DType::kE4M3);
    if (floats || (x.dtype() == DType::kI8 && weight.dtype() == DType::kI8)) {
      plan.x_type = x.dtype();
      plan.weight_type = weight.dtype();
      return;
    }
  }
  const bool whole_f32 = x.dtype() == DType::kF32 && weight.dtype() == DType::kF32;
  if (whole_f32) {
    plan.x_type = plan.weight_type = DType::kF32;
  } else if (x.dtype() == DType::kF32 && !plan.weight_by_block && weight.dtype() != DType::kBF16) {
    plan.x_type = plan.weight_type = DType::kF16;
    plan.scales_x_apart = true;
  } else {
    plan.x_type = plan.weight_type = DType::kBF16;
  }
  if (!whole_f32 && (x.dtype() == DType::kF32 || plan.x_by_block)) plan.x_parts = 2;
  if (plan.weight_by_block) plan.weight_parts = 2;
  plan.converts_x = x.dtype() != plan.x_type || plan.x_parts > 1 || !rows_are_aligned(x);
  plan.converts_weight = weight.dtype() != plan.weight_type || plan.weight_parts > 1 || !rows_are_aligned(weight);
  // Both run over the same K: zeros that one has at its end the other needs too.
  const std::int64_t padded = round_up(plan.inner, 16 / size_of(plan.x_type));
  if (padded != plan.inner) plan.converts_x = plan.converts_weight = true;
  plan.x_stride = plan.weight_stride = padded;
}

/// Whether cuBLASLt's epilogue is the one asked for.
void plan_epilogue(const CudaProduct& product, int architecture, Plan& plan) {
  const Epilogue& epilogue = product.epilogue;
  const TensorView& out = product.out;
  const bool coded_out = product.out_quant_scale != nullptr;
  const bool bf16_out = out.dtype() == DType::kBF16;
  const bool floats = is_float8(plan.x_type);
  if (plan.x_parts > 1 || plan.weight_parts > 1 || plan.scales_x_apart || product.outliers.defined()) return;
  if (plan.x_type == DType::kI8 || epilogue.gate.defined() || !rows_are_aligned(out)) return;
  if (!floats && (plan.row_scales || plan.column_scales)) return;
  if (plan.x_type == DType::kF32 && bf16_out) return;
  if (epilogue.activation != Activation::kNone &&
      !(epilogue.activation == Activation::kGeluTanh && (bf16_out || coded_out))) {
    return;
  }
  bool certain = bf16_out || plan.x_type == DType::kF32;
  if (epilogue.residual.defined()) {
    // cuBLASLt rounds a product to bf16 before it adds what is bf16.
    if (bf16_out || epilogue.activation != Activation::kNone || !rows_are_aligned(epilogue.residual)) return;
  }
  if (epilogue.bias.defined()) {
    if (address(epilogue.bias.data()) % 16 != 0) return;
    const DType bias = epilogue.bias.dtype();
    const bool own_type = bias == out.dtype() && !(floats && !bf16_out);  // never that of codes
    if (!own_type && !(floats && bias == DType::kBF16)) return;
  } else if (epilogue.activation != Activation::kNone) {
    certain = false;
  }
  if (coded_out && (!floats || plan.width % 16 != 0)) return;
  if (floats) {
    const bool one_scale_of_x = product.x.grain == ScaleGrain::kTensor;
    const bool one_each = one_scale_of_x && product.one_weight_scale;
    const std::int64_t groups = groups_of(product);
    const bool joint = one_scale_of_x && product.joint_scale != nullptr;
    const bool vectors = architecture == 90 && product.weight.grain == ScaleGrain::kRow && !coded_out;
    // By vectors cuBLASLt is quicker than by one scale each: qkv of Large takes 204 us, not 215 to 235, on an H200.
    if (one_each && !(vectors && joint)) {
      plan.scaling = LtScaling::kScalars;
    } else if (vectors) {
      // The rows' scales have to begin at a border of 16 bytes, in each group.
      constexpr std::int64_t kBorder = 16 / sizeof(float);
      if (!one_scale_of_x && groups > 1 && plan.rows / groups % kBorder != 0) return;
      plan.scaling = LtScaling::kVectors;
      plan.fills_row_scales = one_scale_of_x && (!joint || plan.rows > kMostOnes);
    } else {
      return;
    }
    constexpr std::int64_t kSurelyServed = 1024;  // cuBLASLt 13.1 has nothing for 333 rows of K = 9728
    certain = certain && plan.rows / groups > kSurelyServed;
  }
  plan.direct = true;
  plan.certain = certain;
}

Plan plan_of(const CudaProduct& product, int architecture) {
  Plan plan;
  plan.rows = matmul_rows(product.out);
  plan.width = product.out.dim(-1);
  plan.inner = product.x.codes.dim(-1);
  plan_factors(product, architecture, plan);
  plan_epilogue(product, architecture, plan);
  plan.sum_stride = round_up(plan.width, 4);
  const bool needs_sums = !plan.direct || !plan.certain;
  plan.chunk_rows = plan.rows;
  const std::int64_t row_bytes = plan.sum_stride * 4;
  if (!plan.direct || needs_sums) {
    const std::int64_t sums_of_row = plan.x_parts * 1 + (plan.weight_parts - 1);
    const std::int64_t most = kMostSumBytes / (row_bytes * sums_of_row) / kChunkGranule * kChunkGranule;
    plan.chunk_rows = std::min(plan.rows, std::max(kChunkGranule, most));
    plan.sum_bytes = aligned(plan.chunk_rows * row_bytes * sums_of_row);
  }
  if (product.outliers.defined()) {
    const std::int64_t count = round_up(product.outliers.dim(-1), 8);
    plan.extra_bytes = aligned(plan.chunk_rows * row_bytes);
    plan.outlier_x_bytes = aligned(plan.chunk_rows * count * 2);
    plan.outlier_weight_bytes = aligned(plan.width * count * 2);
  }
  // A product that cuBLASLt finishes takes all rows at once; only if it will not, in chunks.
  const std::int64_t x_rows = plan.direct ? plan.rows : plan.chunk_rows;
  const bool x_in_groups = groups_of(product.x.codes).count > 1;
  if (plan.converts_x || (x_in_groups && !plan.direct) || (x_in_groups && !plan.certain)) {
    if (plan.x_stride == 0) plan.x_stride = plan.inner;
    plan.x_bytes = aligned(x_rows * plan.x_stride * size_of(plan.x_type) * plan.x_parts);
  }
  if (plan.scales_x_apart) plan.row_scale_bytes = aligned(plan.chunk_rows * 4);
  if (plan.fills_row_scales) plan.row_scale_bytes = aligned(plan.rows * 4);
  if (plan.converts_weight) {
    plan.weight_bytes = aligned(plan.width * plan.weight_stride * size_of(plan.weight_type) * plan.weight_parts);
  }
  return plan;
}

/// One call at work.
class Run {
 public:
  Run(device::ExecutionContext& context, const CudaProduct& product, void* scratch)
      : context_(context),
        gpu_(device::cuda::device_of(context)),
        stream_(device::cuda::stream_of(context)),
        product_(product),
        plan_(plan_of(product, gpu_.architecture())) {
    auto* next = static_cast<std::byte*>(scratch);
    const auto take = [&next](std::size_t bytes) { return std::exchange(next, next + bytes); };
    workspace_ = take(kLtWorkspaceBytes);
    row_scale_ = reinterpret_cast<float*>(take(plan_.row_scale_bytes));
    x_ = take(plan_.x_bytes);
    weight_ = take(plan_.weight_bytes);
    sums_ = take(plan_.sum_bytes);
    extra_ = take(plan_.extra_bytes);
    outlier_x_ = take(plan_.outlier_x_bytes);
    outlier_weight_ = take(plan_.outlier_weight_bytes);
  }

  void run() {
    if (plan_.converts_weight) convert_weight();
    if (plan_.direct) {
      if (run_direct()) return;
      OCTAVO_CHECK(!plan_.certain, "cuBLASLt has no algorithm for x {} {} with weight {} {} into {}",
                   dtype_name(plan_.x_type), product_.x.codes.shape().to_string(), dtype_name(plan_.weight_type),
                   product_.weight.codes.shape().to_string(), dtype_name(product_.out.dtype()));
    }
    if (product_.outliers.defined()) convert_outlier_weight();
    for (std::int64_t first = 0; first < plan_.rows; first += plan_.chunk_rows) {
      run_chunk(first, std::min(plan_.chunk_rows, plan_.rows - first));
    }
  }

 private:
  void convert_weight() {
    const TensorView& weight = product_.weight.codes;
    if (is_quantized(weight.dtype()) && plan_.weight_parts == 1 && plan_.weight_stride == plan_.inner &&
        address(weight.data()) % 16 == 0) {
      widen_codes(stream_, weight.data(), weight.dtype(), weight_, plan_.weight_type, weight.element_count());
      return;
    }
    ConvertWork work = conversion(product_.weight, plan_.weight_by_block, 0, plan_.width);
    work.to = weight_;
    work.to_dtype = plan_.weight_type;
    work.to_stride = plan_.weight_stride;
    if (plan_.weight_parts > 1) work.rest_offset = plan_.width * plan_.weight_stride;
    convert_rows(stream_, work);
  }

  /// Rows of `from`, multiplied by scales of blocks when `by_block`.
  static ConvertWork conversion(const QuantizedView& from, bool by_block, std::int64_t first, std::int64_t rows) {
    ConvertWork work;
    work.from = from.codes.data();
    work.from_dtype = from.codes.dtype();
    work.from_rows = row_layout(from.codes);
    work.first_row = first;
    work.rows = rows;
    work.inner = from.codes.dim(-1);
    if (by_block) {
      work.scale = from.dequant_scale.f32();
      work.scale_row_stride = from.dequant_scale.dim(1);
      work.scale_block_stride = 1;
    }
    return work;
  }

  /// x's rows [first, first + rows) as factors, in scratch.
  void convert_x(std::int64_t first, std::int64_t rows) {
    const TensorView& x = product_.x.codes;
    if (is_quantized(x.dtype()) && plan_.x_parts == 1 && plan_.x_stride == plan_.inner && plan_.x_type != x.dtype()) {
      const auto* from = static_cast<const std::byte*>(x.data()) + first * plan_.inner;
      if (address(from) % 16 == 0) {
        widen_codes(stream_, from, x.dtype(), x_, plan_.x_type, rows * plan_.inner);
        return;
      }
    }
    ConvertWork work = conversion(product_.x, plan_.x_by_block, first, rows);
    work.to = x_;
    work.to_dtype = plan_.x_type;
    work.to_stride = plan_.x_stride;
    if (plan_.x_parts > 1) work.rest_offset = rows * plan_.x_stride;
    if (plan_.scales_x_apart) work.row_scale = row_scale_;
    convert_rows(stream_, work);
  }

  void convert_outlier_weight() {
    const TensorView& weight = product_.outlier_weight;
    ConvertWork work = conversion({weight, {}, ScaleGrain::kRow}, false, 0, plan_.width);
    work.to = outlier_weight_;
    work.to_stride = round_up(weight.dim(1), 8);
    convert_rows(stream_, work);
  }

  LtShape shape_of_factors() const {
    LtShape shape;
    shape.weight_type = lt_type(plan_.weight_type);
    shape.x_type = lt_type(plan_.x_type);
    shape.width = plan_.width;
    shape.inner = plan_.converts_x ? plan_.x_stride : plan_.inner;
    shape.weight_stride = plan_.converts_weight ? plan_.weight_stride : plan_.inner;
    return shape;
  }
  const void* weight_factors() const { return plan_.converts_weight ? weight_ : product_.weight.codes.data(); }

  bool run_direct() {
    const Epilogue& epilogue = product_.epilogue;
    LtShape shape = shape_of_factors();
    LtOperands operands;
    operands.weight = weight_factors();
    shape.out_type = lt_type(product_.out.dtype());
    if (epilogue.bias.defined()) {
      shape.bias_type = lt_type(epilogue.bias.dtype());
      operands.bias = epilogue.bias.data();
    }
    operands.out_quant_scale = product_.out_quant_scale;
    shape.gelu = epilogue.activation == Activation::kGeluTanh ? 1 : 0;
    shape.adds = epilogue.residual.defined() ? 1 : 0;
    shape.scaling = static_cast<std::int32_t>(plan_.scaling);
    if (plan_.scaling != LtScaling::kNone) {
      operands.weight_scale = product_.weight.dequant_scale.f32();
      operands.x_scale = product_.x.dequant_scale.f32();
      if (plan_.scaling == LtScaling::kVectors && product_.x.grain == ScaleGrain::kTensor) {
        // The same factors whatever the number of rows: it changes no bit.
        if (product_.joint_scale != nullptr) {
          operands.weight_scale = product_.joint_scale;
          operands.x_scale = product_.ones;
        }
        if (plan_.fills_row_scales) {
          fill_with(stream_, operands.x_scale, row_scale_, plan_.rows);
          operands.x_scale = row_scale_;
        }
      }
    }
    TensorView x = product_.x.codes;
    if (plan_.converts_x) {
      convert_x(0, plan_.rows);
      x = TensorView(x_, plan_.x_type, Shape{plan_.rows, plan_.x_stride});
    }
    const Groups x_groups = groups_of(x), out_groups = groups_of(product_.out);
    const Groups residual_groups = epilogue.residual.defined() ? groups_of(epilogue.residual) : out_groups;
    const std::int64_t groups = std::max({x_groups.count, out_groups.count, residual_groups.count});
    const std::int64_t rows = plan_.rows / groups;
    shape.rows = rows;
    shape.x_stride = x_groups.stride;
    shape.out_stride = out_groups.stride;
    shape.addend_stride = residual_groups.stride;
    const auto group_stride = [&](const Groups& of) { return of.count > 1 ? of.group_stride : of.stride * rows; };
    operands.x = x.data();
    operands.out = product_.out.data();
    operands.addend = epilogue.residual.data();
    if (groups == 1) return run_lt_product(context_, shape, operands, workspace_);
    const bool vectors = plan_.scaling == LtScaling::kVectors;
    if (!vectors) {  // whose scales would need a stride too
      LtShape together = shape;
      together.batch = static_cast<std::int32_t>(groups);
      together.x_batch_stride = group_stride(x_groups);
      together.out_batch_stride = group_stride(out_groups);
      together.addend_batch_stride = group_stride(residual_groups);
      if (run_lt_product(context_, together, operands, workspace_)) return true;
    }
    const auto advance = [](const void* from, std::int64_t elements, DType dtype) {
      return static_cast<const std::byte*>(from) + elements * size_of(dtype);
    };
    const LtOperands first = operands;
    for (std::int64_t group = 0; group < groups; ++group) {
      operands.x = advance(first.x, group * group_stride(x_groups), plan_.x_type);
      operands.out = const_cast<std::byte*>(advance(first.out, group * group_stride(out_groups), product_.out.dtype()));
      if (first.addend != nullptr) {
        operands.addend = advance(first.addend, group * group_stride(residual_groups), product_.out.dtype());
      }
      if (vectors && product_.x.grain == ScaleGrain::kRow) operands.x_scale = first.x_scale + group * rows;
      if (!run_lt_product(context_, shape, operands, workspace_)) return false;  // the first: nothing was done
    }
    return true;
  }

  void run_chunk(std::int64_t first, std::int64_t rows) {
    LtShape shape = shape_of_factors();
    shape.out_type = plan_.x_type == DType::kI8 ? CUDA_R_32I : CUDA_R_32F;
    shape.integer = plan_.x_type == DType::kI8 ? 1 : 0;
    shape.rows = rows * plan_.x_parts;
    shape.out_stride = plan_.sum_stride;
    LtOperands operands;
    operands.weight = weight_factors();
    operands.out = sums_;
    const Groups x_groups = groups_of(product_.x.codes);
    if (plan_.converts_x || x_groups.count > 1) {
      convert_x(first, rows);
      operands.x = x_;
      shape.x_stride = plan_.x_stride;
    } else {
      operands.x =
          static_cast<const std::byte*>(product_.x.codes.data()) + first * x_groups.stride * size_of(plan_.x_type);
      shape.x_stride = x_groups.stride;
    }
    multiply(shape, operands);

    SumWork sums;
    sums.integers = shape.integer != 0;
    sums.stride = plan_.sum_stride;
    const auto part = [&](std::int64_t i) { return reinterpret_cast<float*>(sums_) + i * rows * plan_.sum_stride; };
    for (sums.part_count = 0; sums.part_count < plan_.x_parts; ++sums.part_count) {
      sums.parts[sums.part_count] = part(sums.part_count);
    }
    if (plan_.weight_parts > 1) {  // what the weight's rounding left over, with x's rounded part
      operands.weight =
          static_cast<const std::byte*>(weight_) + plan_.width * plan_.weight_stride * size_of(plan_.weight_type);
      operands.out = part(sums.part_count);
      shape.rows = rows;
      multiply(shape, operands);
      sums.parts[sums.part_count++] = operands.out;
    }
    if (plan_.row_scales) {
      const bool one = product_.x.grain == ScaleGrain::kTensor;
      sums.row_scale = product_.x.dequant_scale.f32() + (one ? 0 : first);
      sums.row_scale_stride = one ? 0 : 1;
    } else if (plan_.scales_x_apart) {
      sums.row_scale = row_scale_;
    }
    if (plan_.column_scales) {
      sums.column_scale = product_.weight.dequant_scale.f32();
      sums.column_scale_stride = product_.weight.grain == ScaleGrain::kTensor ? 0 : 1;
    }
    if (product_.outliers.defined()) {
      multiply_outliers(first, rows);
      sums.extra = reinterpret_cast<const float*>(extra_);
    }
    EpilogueWork epilogue = epilogue_work(product_.epilogue, product_.out);
    epilogue.quant_scale = product_.out_quant_scale;
    finish_rows(stream_, gpu_.multiprocessors(), sums, epilogue, first, rows);
  }

  void multiply_outliers(std::int64_t first, std::int64_t rows) {
    ConvertWork work = conversion({product_.outliers, {}, ScaleGrain::kRow}, false, first, rows);
    work.to = outlier_x_;
    work.to_stride = round_up(product_.outliers.dim(-1), 8);
    convert_rows(stream_, work);
    LtShape shape;
    shape.weight_type = shape.x_type = CUDA_R_16BF;
    shape.out_type = CUDA_R_32F;
    shape.width = plan_.width;
    shape.rows = rows;
    shape.inner = shape.x_stride = shape.weight_stride = work.to_stride;
    shape.out_stride = plan_.sum_stride;
    LtOperands operands;
    operands.weight = outlier_weight_;
    operands.x = outlier_x_;
    operands.out = extra_;
    multiply(shape, operands);
  }

  void multiply(const LtShape& shape, const LtOperands& operands) {
    OCTAVO_CHECK(run_lt_product(context_, shape, operands, workspace_),
                 "cuBLASLt has no algorithm for {} rows of {} {} with {} columns of {}", shape.rows, shape.inner,
                 dtype_name(plan_.x_type), shape.width, dtype_name(plan_.weight_type));
  }

  device::ExecutionContext& context_;
  CudaDevice& gpu_;
  cudaStream_t stream_;
  const CudaProduct& product_;
  Plan plan_;
  void* workspace_ = nullptr;
  float* row_scale_ = nullptr;
  std::byte *x_ = nullptr, *weight_ = nullptr, *sums_ = nullptr, *extra_ = nullptr;
  std::byte *outlier_x_ = nullptr, *outlier_weight_ = nullptr;
};

constexpr std::int64_t kMostFewRows = 2 * kFewRows;

DType few_rows_factor(const CudaProduct& product) {
  return product.weight.codes.dtype() == DType::kBF16 ? DType::kBF16 : DType::kF16;
}

}  // namespace

RowLayout row_layout(const TensorView& view) {
  if (view.rank() == 2) return {view.dim(0) > 0 ? view.dim(0) : 1, 0, view.stride(0)};
  return {view.dim(1) > 0 ? view.dim(1) : 1, view.stride(0), view.stride(1)};
}

EpilogueWork epilogue_work(const Epilogue& epilogue, const TensorView& out) {
  EpilogueWork work;
  work.width = static_cast<int>(out.dim(-1));
  work.in_fours = work.width % 4 == 0;
  const auto in_fours = [&work](const TensorView& view) {
    const std::int64_t four = 4 * size_of(view.dtype());
    work.in_fours = work.in_fours && address(view.data()) % four == 0;
    for (int axis = 0; axis + 1 < view.rank(); ++axis) {
      work.in_fours = work.in_fours && (view.dim(axis) == 1 || view.stride(axis) % 4 == 0);
    }
  };
  in_fours(out);
  work.out = out.data();
  work.out_dtype = out.dtype();
  work.out_rows = row_layout(out);
  work.activation = epilogue.activation;
  if (epilogue.bias.defined()) {
    in_fours(epilogue.bias);
    work.bias = epilogue.bias.data();
    work.bias_is_f32 = epilogue.bias.dtype() == DType::kF32;
  }
  if (epilogue.gate.defined()) {
    in_fours(epilogue.gate);
    work.gate = epilogue.gate.f32();
    work.gate_stride = epilogue.gate.stride(0);
    work.rows_per_gate = matmul_rows(out) / epilogue.gate.dim(0);
  }
  if (epilogue.residual.defined()) {
    in_fours(epilogue.residual);
    work.residual = epilogue.residual.data();
    work.residual_rows = row_layout(epilogue.residual);
  }
  return work;
}

std::size_t cuda_product_scratch_bytes(const CudaProduct& product, int architecture) {
  return plan_of(product, architecture).total();
}

void run_cuda_product(device::ExecutionContext& context, const CudaProduct& product, void* scratch) {
  Run(context, product, scratch).run();
}

bool few_rows_supports(const CudaProduct& product, int architecture) {
  const TensorView& x = product.x.codes;
  const TensorView& weight = product.weight.codes;
  if (x.dtype() != DType::kF32 || matmul_rows(x) > kMostFewRows || x.dim(-1) % kFewRowsInner != 0) return false;
  if (product.outliers.defined() || address(weight.data()) % 16 != 0) return false;
  if (is_quantized(weight.dtype())) return product.weight.grain != ScaleGrain::kBlock128;
  // Two stages of 16-bit weights need more than the 99 KiB that a block of sm_86, 89 and 12x has.
  const bool large_blocks = architecture == 80 || architecture == 87 || architecture == 90 || architecture == 100;
  return large_blocks && weight.dtype() != DType::kF32;
}

std::size_t few_rows_scratch_bytes(const CudaProduct& product) {
  const std::int64_t passes = (matmul_rows(product.x.codes) + kFewRows - 1) / kFewRows;
  return static_cast<std::size_t>(passes) * aligned(kFewRows * (4 + 2 * product.x.codes.dim(-1) * 2));
}

void run_few_rows(device::ExecutionContext& context, const CudaProduct& product, void* scratch) {
  const cudaStream_t stream = device::cuda::stream_of(context);
  const TensorView& x = product.x.codes;
  const std::int64_t rows = matmul_rows(x), inner = x.dim(-1);
  EpilogueWork epilogue = epilogue_work(product.epilogue, product.out);
  epilogue.quant_scale = product.out_quant_scale;
  auto* next = static_cast<std::byte*>(scratch);
  for (std::int64_t first = 0; first < rows; first += kFewRows) {
    auto* row_scale = reinterpret_cast<float*>(next);
    std::byte* factors = next + kFewRows * sizeof(float);
    next += aligned(kFewRows * (4 + 2 * inner * 2));
    ConvertWork convert;
    convert.from = x.data();
    convert.from_dtype = x.dtype();
    convert.from_rows = row_layout(x);
    convert.first_row = first;
    convert.rows = std::min<std::int64_t>(kFewRows, rows - first);
    convert.inner = inner;
    convert.to = factors;
    convert.to_dtype = few_rows_factor(product);
    convert.to_stride = inner;
    convert.padded_rows = few_rows_padded(static_cast<int>(convert.rows));
    convert.rest_offset = kFewRows * inner;
    if (convert.to_dtype == DType::kF16) convert.row_scale = row_scale;
    convert_rows(stream, convert);
    FewRowsWork work;
    work.weight = product.weight.codes.data();
    work.weight_dtype = product.weight.codes.dtype();
    work.width = static_cast<int>(product.out.dim(-1));
    work.inner = static_cast<int>(inner);
    work.x = factors;
    work.rows = static_cast<int>(convert.rows);
    work.first_row = first;
    work.row_scale = convert.row_scale;
    if (is_quantized(work.weight_dtype)) {
      work.column_scale = product.weight.dequant_scale.f32();
      work.column_scale_stride = product.weight.grain == ScaleGrain::kTensor ? 0 : 1;
    }
    multiply_few_rows(stream, work, epilogue);
  }
}

}  // namespace octavo::ops
