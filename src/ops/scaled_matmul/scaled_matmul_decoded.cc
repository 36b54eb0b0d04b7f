// scaled_matmul through the products that the processor has: codes are numbers that bf16 and f32 hold exactly.
//
// Mapping: weights are rearranged once for matmul's best row (oneDNN's blocks, or our panels below AVX-512) and stay
//   codes; a call widens them into scratch as matmul does with 16-bit weights of f32 products. Rows of x come in chunks
//   of kChunkRows: decoded, multiplied (one product for each block of K when a scale is of a block), scaled, summed,
//   then finished by matmul's vectorised epilogue. Chunks bound the scratch and change no bit: a row of matmul does not
//   depend on how many there are.
// Arithmetic: bf16 x bf16 with f32 sums where the processor has AVX512-BF16, else f32; plain activations in their type.
// FLOPs 2 M N K; bytes M K + N K codes, M N elements, and 4 M N of scratch written and read once for each block of K.
//   What decoding costs is 1 / kChunkRows of the work for weights, 1 / N for activations.
#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "ops/matmul/matmul_kernels.h"
#include "ops/onednn_weight.h"
#include "ops/parallel_rows.h"
#include "ops/scaled_matmul/scaled_matmul_kernels.h"

namespace octavo::ops {
namespace {

constexpr std::int64_t kChunkRows = 1024;

/// A weight cut along K where scales change, each part packed for matmul's rows.
class DecodedWeight final : public PackedWeight {
 public:
  std::size_t byte_count() const override {
    std::size_t bytes = scales.byte_count();
    for (const MatmulWeight& part : parts) bytes += part.packed->byte_count();
    return bytes + (outliers.packed ? outliers.packed->byte_count() : 0);
  }
  const float* column_scales(std::size_t part) const {
    return static_cast<const float*>(scales.data()) + part * static_cast<std::size_t>(width);
  }

  DType factor = DType::kF32;       // what products are fed with: f32 | bf16
  std::int64_t width = 0;           // N
  std::vector<std::int64_t> inner;  // K of each part
  std::vector<MatmulWeight> parts;
  device::Buffer scales;  // f32 [parts, N]
  MatmulWeight outliers;
};

const DecodedWeight* decoded_weight(const ScaledMatmulArgs& args) {
  return dynamic_cast<const DecodedWeight*>(args.weight.packed.get());
}

/// matmul's row for a packed weight; null when only the reference would serve, which reads what codes do not have.
const KernelRow<MatmulArgs>* product_row(const MatmulArgs& args, const DeviceTraits& traits) {
  for (const KernelRow<MatmulArgs>& row : matmul_table().rows()) {
    if (row.device != traits.kind || row.supports == nullptr) continue;
    if (row.supports(args, traits)) return &row;
  }
  return nullptr;
}

MatmulArgs product_of(const MatmulWeight& weight, DType factor, void* x, std::int64_t rows, std::int64_t inner,
                      void* out, std::int64_t width) {
  MatmulArgs args;
  args.x = TensorView(x, factor, Shape{rows, inner});
  args.weight = weight;
  args.out = TensorView(out, DType::kF32, Shape{rows, width});
  return args;
}

std::size_t product_scratch_bytes(const ExecutionContext& context, const MatmulArgs& args) {
  const KernelRow<MatmulArgs>& row = *product_row(args, context.traits());
  return row.scratch_bytes == nullptr ? 0 : align_scratch(row.scratch_bytes(context, args));
}

/// The scratch of one call, in this order.
struct Plan {
  std::int64_t chunk_rows = 0;
  std::size_t x_bytes = 0;        // x of one part as factors
  std::size_t outlier_bytes = 0;  // outliers as factors, when those are f32
  std::size_t sum_bytes = 0;      // f32 [chunk, N]
  std::size_t product_bytes = 0;  // one more, when there is more than one product
  std::size_t inner_bytes = 0;    // matmul's own
  std::size_t total() const { return x_bytes + outlier_bytes + sum_bytes + product_bytes + inner_bytes; }
};

/// x lies as matmul reads it: nothing to decode, cut or gather.
bool reads_x_in_place(const ScaledMatmulArgs& args, const DecodedWeight& weight) {
  return !is_quantized(args.x.codes.dtype()) && weight.parts.size() == 1 && args.x.codes.contiguous();
}

Plan plan_of(const ExecutionContext& context, const ScaledMatmulArgs& args) {
  const DecodedWeight& weight = *decoded_weight(args);
  const std::int64_t rows = matmul_rows(args.out);
  const bool has_outliers = args.outliers.defined();
  Plan plan;
  plan.chunk_rows = std::min(rows, kChunkRows);
  const auto elements = [&plan](std::int64_t columns) { return static_cast<std::size_t>(plan.chunk_rows * columns); };
  if (!reads_x_in_place(args, weight)) {
    plan.x_bytes = align_scratch(elements(*std::ranges::max_element(weight.inner)) * dtype_size(weight.factor));
  }
  if (has_outliers && weight.factor == DType::kF32) {
    plan.outlier_bytes = align_scratch(elements(args.outliers.dim(-1)) * sizeof(float));
  }
  plan.sum_bytes = align_scratch(elements(weight.width) * sizeof(float));
  if (weight.parts.size() > 1 || has_outliers) plan.product_bytes = plan.sum_bytes;
  for (const std::int64_t chunk : {plan.chunk_rows, rows % kChunkRows}) {
    if (chunk == 0) continue;
    const auto needed = [&](const MatmulWeight& part, std::int64_t inner) {
      return product_scratch_bytes(context,
                                   product_of(part, weight.factor, nullptr, chunk, inner, nullptr, weight.width));
    };
    for (std::size_t part = 0; part < weight.parts.size(); ++part) {
      plan.inner_bytes = std::max(plan.inner_bytes, needed(weight.parts[part], weight.inner[part]));
    }
    if (has_outliers) plan.inner_bytes = std::max(plan.inner_bytes, needed(weight.outliers, args.outliers.dim(-1)));
  }
  return plan;
}

float row_scale(const QuantizedView& x, std::int64_t row, std::size_t part) {
  if (!x.dequant_scale.defined()) return 1.0f;
  const float* scales = x.dequant_scale.f32();
  switch (x.grain) {
    case ScaleGrain::kTensor:
      return scales[0];
    case ScaleGrain::kRow:
      return scales[row];
    case ScaleGrain::kBlock128:
      return scales[row * x.dequant_scale.dim(1) + static_cast<std::int64_t>(part)];
  }
  return 1.0f;
}

/// Columns [begin, begin + count) of rows [first, first + rows) as factors.
void decode_columns(const DeviceTraits& traits, const TensorView& from, std::int64_t first, std::int64_t rows,
                    std::int64_t begin, std::int64_t count, DType factor, void* to) {
  constexpr std::int64_t kElementsPerTask = 1 << 14;
  const std::int64_t grain = std::max<std::int64_t>(1, kElementsPerTask / count);
  device::parallel_for(traits, rows, grain, [&](std::int64_t first_row, std::int64_t end_row) {
    for (std::int64_t row = first_row; row < end_row; ++row) {
      const auto* source = static_cast<const std::byte*>(matmul_row(from, first + row)) +
                           static_cast<std::size_t>(begin) * dtype_size(from.dtype());
      auto* target = static_cast<std::byte*>(to) + static_cast<std::size_t>(row * count) * dtype_size(factor);
      widen_elements(from.dtype(), source, factor, target, 0, count);
    }
  });
}

}  // namespace

bool scaled_matmul_decoded_supports(const ScaledMatmulArgs& args, const DeviceTraits&) {
  const DecodedWeight* weight = decoded_weight(args);
  if (weight == nullptr || !has_plain_epilogue(args.epilogue) || args.out_quant_scale.defined()) return false;
  const QuantizedView& x = args.x;
  if (!is_quantized(x.codes.dtype())) return x.codes.dtype() == weight->factor;
  return x.grain != ScaleGrain::kBlock128 || weight->parts.size() == static_cast<std::size_t>(x.dequant_scale.dim(1));
}

std::size_t scaled_matmul_decoded_scratch_bytes(const ExecutionContext& context, const ScaledMatmulArgs& args) {
  return plan_of(context, args).total();
}

void scaled_matmul_decoded(ExecutionContext& context, const ScaledMatmulArgs& args, void* scratch) {
  const DeviceTraits& traits = context.traits();
  limit_vectors(traits);
  const DecodedWeight& weight = *decoded_weight(args);
  const Plan plan = plan_of(context, args);
  const std::int64_t rows = matmul_rows(args.out);
  auto* next = static_cast<std::byte*>(scratch);
  const auto take = [&next](std::size_t bytes) { return std::exchange(next, next + bytes); };
  void* x_factors = take(plan.x_bytes);
  void* outlier_factors = take(plan.outlier_bytes);
  auto* sum = reinterpret_cast<float*>(take(plan.sum_bytes));
  auto* product = plan.product_bytes > 0 ? reinterpret_cast<float*>(take(plan.product_bytes)) : sum;
  void* inner_scratch = next;

  const auto multiply = [&](const MatmulArgs& one) { product_row(one, traits)->run(context, one, inner_scratch); };
  constexpr std::int64_t kRowsPerTask = 16;
  for (std::int64_t first = 0; first < rows; first += plan.chunk_rows) {
    const std::int64_t chunk = std::min(plan.chunk_rows, rows - first);
    std::int64_t column = 0;
    for (std::size_t part = 0; part < weight.parts.size(); ++part) {
      const std::int64_t inner = weight.inner[part];
      void* x = x_factors;
      if (plan.x_bytes == 0) {
        x = matmul_row(args.x.codes, first);
      } else {
        decode_columns(traits, args.x.codes, first, chunk, column, inner, weight.factor, x);
      }
      column += inner;
      float* to = part == 0 ? sum : product;
      multiply(product_of(weight.parts[part], weight.factor, x, chunk, inner, to, weight.width));
      device::parallel_for(traits, chunk, kRowsPerTask, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row) {
          scale_product_row(to + row * weight.width, row_scale(args.x, first + row, part), weight.column_scales(part),
                            part == 0, sum + row * weight.width, weight.width);
        }
      });
    }
    if (args.outliers.defined()) {
      const std::int64_t count = args.outliers.dim(-1);
      void* outliers = matmul_row(args.outliers, first);
      if (plan.outlier_bytes > 0) {
        decode_columns(traits, args.outliers, first, chunk, 0, count, weight.factor, outlier_factors);
        outliers = outlier_factors;
      }
      multiply(product_of(weight.outliers, weight.factor, outliers, chunk, count, product, weight.width));
    }
    MatmulArgs finished;  // what the epilogue looks at
    finished.epilogue = args.epilogue;
    finished.out = args.out;
    device::parallel_for(traits, chunk, kRowsPerTask, [&](std::int64_t begin, std::int64_t end) {
      if (args.outliers.defined()) {
        add_product_row(product + begin * weight.width, sum + begin * weight.width, (end - begin) * weight.width);
      }
      finish_product(finished, {.values = sum + begin * weight.width,
                                .stride = weight.width,
                                .first_row = first + begin,
                                .rows = end - begin,
                                .first_column = 0,
                                .columns = weight.width,
                                .adds_bias = true});
    });
  }
}

Result<std::shared_ptr<const PackedWeight>> pack_decoded_weight(device::Device& device, const QuantizedView& quantized,
                                                                const TensorView& outlier_weight,
                                                                const ScaledActivations& activations) {
  const DeviceTraits& traits = device.traits();
  const std::int64_t width = quantized.rows();
  const std::int64_t inner = quantized.inner();
  const bool by_block = quantized.grain == ScaleGrain::kBlock128 ||
                        (is_quantized(activations.dtype) && activations.grain == ScaleGrain::kBlock128);
  const std::int64_t part_inner = by_block ? kScaleBlock : inner;
  auto weight = std::make_shared<DecodedWeight>();
  weight->width = width;
  weight->factor = !is_quantized(activations.dtype) ? activations.dtype
                   : traits.has_avx512_bf16         ? DType::kBF16
                                                    : DType::kF32;
  device::Buffer cut;  // a part's columns, side by side
  if (by_block) {
    OCTAVO_ASSIGN_OR_RETURN(cut, device.allocate(static_cast<std::size_t>(width * part_inner)));
  }
  const auto* codes = static_cast<const std::byte*>(quantized.codes.data());
  for (std::int64_t begin = 0; begin < inner; begin += part_inner) {
    const std::int64_t count = std::min(part_inner, inner - begin);
    TensorView part = quantized.codes;
    if (by_block) {
      auto* to = static_cast<std::byte*>(cut.data());
      for (std::int64_t row = 0; row < width; ++row) {
        std::memcpy(to + row * count, codes + row * inner + begin, static_cast<std::size_t>(count));
      }
      part = TensorView(cut.data(), quantized.codes.dtype(), Shape{width, count});
    }
    OCTAVO_ASSIGN_OR_RETURN(MatmulWeight packed, pack_matmul_weight(device, part, weight->factor));
    if (packed.packed == nullptr) return std::shared_ptr<const PackedWeight>();
    packed.plain = {};  // the codes' memory is not ours
    weight->parts.push_back(std::move(packed));
    weight->inner.push_back(count);
  }
  if (outlier_weight.defined()) {
    OCTAVO_ASSIGN_OR_RETURN(weight->outliers, pack_matmul_weight(device, outlier_weight, weight->factor));
    if (weight->outliers.packed == nullptr) return std::shared_ptr<const PackedWeight>();
    weight->outliers.plain = {};
  }
  const std::size_t parts = weight->parts.size();
  OCTAVO_ASSIGN_OR_RETURN(weight->scales, device.allocate(parts * static_cast<std::size_t>(width) * sizeof(float)));
  auto* scales = static_cast<float*>(weight->scales.data());
  const float* stored = quantized.dequant_scale.f32();
  for (std::size_t part = 0; part < parts; ++part) {
    for (std::int64_t n = 0; n < width; ++n) {
      *scales++ = quantized.grain == ScaleGrain::kTensor ? stored[0]
                  : quantized.grain == ScaleGrain::kRow
                      ? stored[n]
                      : stored[n * quantized.dequant_scale.dim(1) + static_cast<std::int64_t>(part)];
    }
  }
  std::shared_ptr<const PackedWeight> result = std::move(weight);
  return result;
}

}  // namespace octavo::ops
