// matmul on oneDNN's blocked AVX-512 kernels ("brgemm"). Its AVX2 product sums the last rows in another order than the
// others, so that a row would depend on how many there are: there our own panels serve (matmul_panels.cc).
//
// Mapping: one primitive for all rows where x and out have dense rows throughout, else one for each batch row; oneDNN
//   splits rows and columns over its threads. Weights are rearranged once at load into the kernel's own blocks.
// Arithmetic: bf16 x and weights where the processor has AVX512-BF16, else f32. For f32 the blocks are kept 16-bit and
//   widened, element by element, into scratch at each call: the weight's bytes in memory stay halved for
//   2 N K / (2 M N K) = 1/M of the work.
// Epilogue: bias, activation, gate and residual run inside oneDNN's kernel while a tile is in registers where it is
//   fast (dense rows); else the product goes to scratch and one vectorised pass finishes it.
// Bits: brgemm sums each output in order of k whatever M is, so a row's result does not depend on the other rows
//   (matmul_test.cc compares M = 1..820 bit for bit).
// FLOPs 2 M N K; bytes M K + N K + M N elements. Measured at octavo-tiny's shapes (AMD EPYC of family 25, model 17, two
//   cores, 2026-11-24, `octavo bench --suite ops`): bf16 340 to 452 GFLOP/s, 76 to 102 % of oneDNN's bare product (GELU
//   is the low end), which reaches 450 of a peak near 460.
#include <compare>
#include <cstring>

#include "ops/matmul/matmul_kernels.h"
#include "ops/onednn_weight.h"
#include "ops/parallel_rows.h"
#include "ops/rows.h"

namespace octavo::ops {
namespace {

using dnnl::memory;

const OnednnWeight* packed_weight(const MatmulArgs& args) {
  return dynamic_cast<const OnednnWeight*>(args.weight.packed.get());
}

/// Rows of the last axis lie side by side, within each batch row.
bool dense_rows(const TensorView& view) { return view.dim(-2) == 1 || view.stride(-2) == view.dim(-1); }
/// All rows lie side by side.
bool dense(const TensorView& view) {
  return dense_rows(view) && (view.rank() == 2 || view.dim(0) == 1 || view.stride(0) == view.dim(1) * view.dim(2));
}

/// How one call is done, from its arguments alone.
struct Plan {
  bool fused = false;     // the epilogue runs inside oneDNN, on out itself
  bool copies_x = false;  // rows of x are gathered into scratch first
  std::int64_t groups = 1;
  std::int64_t group_rows = 0;
  std::size_t weight_bytes = 0;  // scratch, in this order
  std::size_t x_bytes = 0;
  std::size_t product_bytes = 0;
};

Plan plan_of(const MatmulArgs& args) {
  const Epilogue& epilogue = args.epilogue;
  const std::int64_t rows = matmul_rows(args.x);
  Plan plan;
  // oneDNN 2.6: the exact GELU is 20 times slower than the product on bf16; f32 x has no bf16 out.
  plan.fused = dense_rows(args.out) && epilogue.activation != Activation::kGeluErf &&
               (args.x.dtype() == DType::kBF16 || args.out.dtype() == DType::kF32);
  plan.copies_x = !dense_rows(args.x);
  const bool joined =
      (plan.copies_x || dense(args.x)) && (!plan.fused || dense(args.out)) && !(plan.fused && epilogue.gate.defined());
  if (!joined) plan.groups = epilogue.gate.defined() ? epilogue.gate.dim(0) : args.x.dim(0);
  plan.group_rows = rows / plan.groups;
  plan.weight_bytes = packed_weight(args)->scratch_bytes();
  if (plan.copies_x) {
    plan.x_bytes = align_scratch(static_cast<std::size_t>(args.x.element_count()) * dtype_size(args.x.dtype()));
  }
  if (!plan.fused)
    plan.product_bytes = align_scratch(static_cast<std::size_t>(args.out.element_count()) * sizeof(float));
  return plan;
}

/// What a primitive is built from; two calls with equal keys share one.
struct Key {
  std::int64_t rows, inner, width;
  DType x, out;
  bool bias, gate, residual;
  Activation activation;
  int threads;
  std::strong_ordering operator<=>(const Key&) const = default;
};

void append_activation(dnnl::post_ops& post_ops, Activation activation) {
  using dnnl::algorithm;
  switch (activation) {
    case Activation::kNone:
      return;
    case Activation::kSilu:
      post_ops.append_eltwise(1.0f, algorithm::eltwise_swish, 1.0f, 0.0f);
      return;
    case Activation::kGeluTanh:
      post_ops.append_eltwise(1.0f, algorithm::eltwise_gelu_tanh, 0.0f, 0.0f);
      return;
    case Activation::kGeluErf:
      post_ops.append_eltwise(1.0f, algorithm::eltwise_gelu_erf, 0.0f, 0.0f);
      return;
    case Activation::kQuickGelu:
      post_ops.append_eltwise(1.0f, algorithm::eltwise_swish, 1.702f, 0.0f);
      return;
  }
}

std::shared_ptr<OnednnPrimitive> build_primitive(const Key& key, const memory::desc& weight_layout) {
  const memory::desc x({key.rows, key.inner}, onednn_type(key.x), memory::format_tag::ab);
  const memory::desc out({key.rows, key.width}, onednn_type(key.out), memory::format_tag::ab);
  const memory::desc row({1, key.width}, memory::data_type::f32, memory::format_tag::ab);
  dnnl::post_ops post_ops;
  append_activation(post_ops, key.activation);
  const int gate_position = post_ops.len();
  if (key.gate) post_ops.append_binary(dnnl::algorithm::binary_mul, row);
  if (key.residual) post_ops.append_sum(1.0f);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  attributes.set_post_ops(post_ops);
  const auto description =
      key.bias ? dnnl::matmul::desc(x, weight_layout, row, out) : dnnl::matmul::desc(x, weight_layout, out);
  const dnnl::matmul::primitive_desc primitive(description, attributes, onednn_engine());
  std::vector<OnednnPrimitive::Argument> arguments{
      {DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, weight_layout}, {DNNL_ARG_DST, out}};
  if (key.bias) arguments.push_back({DNNL_ARG_BIAS, row});
  if (key.gate) {
    arguments.push_back({static_cast<int>(DNNL_ARG_ATTR_MULTIPLE_POST_OP(gate_position) | DNNL_ARG_SRC_1), row});
  }
  return std::make_shared<OnednnPrimitive>(dnnl::matmul(primitive), std::move(arguments), primitive.scratchpad_desc());
}

std::shared_ptr<OnednnPrimitive> primitive_for(const MatmulArgs& args, const Plan& plan, const DeviceTraits& traits) {
  static OnednnPrimitiveCache<Key> cache;  // primitives are immutable and hold no data of a model
  prepare_onednn(traits);
  const Epilogue& epilogue = args.epilogue;
  const Key key{.rows = plan.group_rows,
                .inner = args.x.dim(-1),
                .width = args.out.dim(-1),
                .x = args.x.dtype(),
                .out = plan.fused ? args.out.dtype() : DType::kF32,
                .bias = epilogue.bias.defined(),
                .gate = plan.fused && epilogue.gate.defined(),
                .residual = plan.fused && epilogue.residual.defined(),
                .activation = plan.fused ? epilogue.activation : Activation::kNone,
                .threads = traits.thread_count};
  return cache.find_or_build(key, [&] { return build_primitive(key, packed_weight(args)->layout()); });
}

/// `to` is dense, or a view of the same shape.
void copy_rows(const DeviceTraits& traits, const TensorView& from, const TensorView& to) {
  const std::size_t bytes = static_cast<std::size_t>(from.dim(-1)) * dtype_size(from.dtype());
  device::parallel_for(traits, matmul_rows(from), 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      std::memcpy(matmul_row(to, row), matmul_row(from, row), bytes);
    }
  });
}

bool same_place(const TensorView& a, const TensorView& b) {
  if (a.data() != b.data()) return false;
  for (int axis = 0; axis + 1 < a.rank(); ++axis) {
    if (a.dim(axis) > 1 && a.stride(axis) != b.stride(axis)) return false;
  }
  return true;
}

}  // namespace

bool matmul_onednn_supports(const MatmulArgs& args, const DeviceTraits&) {
  const OnednnWeight* weight = packed_weight(args);
  return weight != nullptr && args.weight.packed_for == args.x.dtype() && has_plain_epilogue(args.epilogue);
}

std::size_t matmul_onednn_scratch_bytes(const ExecutionContext& context, const MatmulArgs& args) {
  const Plan plan = plan_of(args);
  return plan.weight_bytes + plan.x_bytes + plan.product_bytes +
         primitive_for(args, plan, context.traits())->scratchpad_bytes();
}

void matmul_onednn(ExecutionContext& context, const MatmulArgs& args, void* scratch) {
  const DeviceTraits& traits = context.traits();
  limit_vectors(traits);
  const Plan plan = plan_of(args);
  const auto primitive = primitive_for(args, plan, traits);
  const Epilogue& epilogue = args.epilogue;
  auto* next = static_cast<std::byte*>(scratch);
  const auto take = [&next](std::size_t bytes) { return std::exchange(next, next + bytes); };

  const void* weight = packed_weight(args)->ready(traits, take(plan.weight_bytes));
  TensorView x = args.x;
  if (plan.copies_x) {
    x = TensorView(take(plan.x_bytes), args.x.dtype(), args.x.shape());
    copy_rows(traits, args.x, x);
  }
  TensorView out = args.out;
  if (!plan.fused) out = TensorView(take(plan.product_bytes), DType::kF32, args.out.shape());
  if (plan.fused && epilogue.residual.defined() && !same_place(epilogue.residual, out)) {
    copy_rows(traits, epilogue.residual, out);  // oneDNN adds to what is in place
  }
  for (std::int64_t group = 0; group < plan.groups; ++group) {
    const std::int64_t row = group * plan.group_rows;
    std::array<void*, OnednnPrimitive::kMaxArguments + 1> pointers{};
    std::size_t count = 0;
    pointers[count++] = matmul_row(x, row);
    pointers[count++] = const_cast<void*>(weight);
    pointers[count++] = matmul_row(out, row);
    if (epilogue.bias.defined()) pointers[count++] = epilogue.bias.data();
    if (plan.fused && epilogue.gate.defined()) pointers[count++] = Row::address(epilogue.gate, {group});
    pointers[count++] = next;  // the primitive's own scratch comes last
    primitive->execute(std::span(pointers.data(), count));
  }
  if (plan.fused) return;
  const std::int64_t width = out.dim(-1);
  device::parallel_for(traits, matmul_rows(out), 16, [&](std::int64_t begin, std::int64_t end) {
    finish_product(args, {.values = out.f32() + begin * width,
                          .stride = width,
                          .first_row = begin,
                          .rows = end - begin,
                          .first_column = 0,
                          .columns = width,
                          .adds_bias = false});
  });
}

Result<std::shared_ptr<const PackedWeight>> pack_onednn_weight(device::Device& device, const TensorView& plain,
                                                               DType activation_dtype) {
  std::shared_ptr<const PackedWeight> packed;
  const DeviceTraits& traits = device.traits();
  if (!traits.has_avx512 || (activation_dtype == DType::kBF16 && !traits.has_avx512_bf16)) return packed;
  prepare_onednn(traits);
  const memory::dims shape{plain.dim(1), plain.dim(0)};  // K x N, as the product reads it
  // The layout depends on N, K and the types; the row count stands for any.
  constexpr std::int64_t kTypicalRows = 256;
  const auto type = onednn_type(activation_dtype);
  const dnnl::matmul::primitive_desc description(
      dnnl::matmul::desc(memory::desc({kTypicalRows, shape[0]}, type, memory::format_tag::ab),
                         memory::desc(shape, type, memory::format_tag::any),
                         memory::desc({kTypicalRows, shape[1]}, memory::data_type::f32, memory::format_tag::ab)),
      onednn_engine());
  const memory::desc plain_layout(shape, memory::data_type::f32, memory::format_tag::ba);
  OCTAVO_ASSIGN_OR_RETURN(packed, pack_for_onednn(device, plain, plain_layout, description.weights_desc()));
  return packed;
}

}  // namespace octavo::ops
