// The products of octavo-tiny: D = 192, 256 image and 154 text tokens, two rows; and oneDNN alone at the same shapes.
// On a GPU those of Large: D = 2432, 4096 image and 333 text tokens, T5's at 256 tokens.
#include <span>

#include "ops/matmul/matmul.h"
#include "ops/onednn.h"
#include "ops/op_cases.h"

namespace octavo::ops {
namespace {

struct ProductShape {
  const char* name;
  std::int64_t tokens;  // of one row; two rows
  std::int64_t width;
  std::int64_t inner;
  Activation activation = Activation::kNone;
  bool gated_residual = false;
};

constexpr ProductShape kShapes[] = {
    {"image qkv", 256, 576, 192},
    {"image out, gate", 256, 192, 192, Activation::kNone, true},
    {"image up, gelu", 256, 768, 192, Activation::kGeluTanh},
    {"image down, gate", 256, 192, 768, Activation::kNone, true},
    {"text qkv", 154, 576, 192},
    {"text up, gelu", 154, 768, 192, Activation::kGeluTanh},
    {"text down, gate", 154, 192, 768, Activation::kNone, true},
    {"patches in", 256, 192, 64},
    {"patches out", 256, 64, 192},
    {"modulations", 20, 1152, 192},
};

constexpr ProductShape kFullSize[] = {
    {"image qkv", 4096, 7296, 2432},
    {"image out", 4096, 2432, 2432},
    {"image up, gelu", 4096, 9728, 2432, Activation::kGeluTanh},
    {"image down", 4096, 2432, 9728},
    {"text qkv", 333, 7296, 2432},
    {"text out", 333, 2432, 2432},
    {"text up, gelu", 333, 9728, 2432, Activation::kGeluTanh},
    {"text down", 333, 2432, 9728},
    {"modulations", 28, 14592, 2432},
    {"T5 up", 128, 10240, 4096},
    {"T5 down", 128, 4096, 10240},
};

/// A bare product on weights packed in x's type: what oneDNN reaches when nothing else is asked of it.
std::function<void(ExecutionContext&)> onednn_alone(device::Device& device, const ProductShape& shape, DType dtype) {
  using dnnl::memory;
  prepare_onednn(device.traits());
  const auto type = onednn_type(dtype);
  const memory::desc x({2 * shape.tokens, shape.inner}, type, memory::format_tag::ab);
  const memory::desc out({2 * shape.tokens, shape.width}, memory::data_type::f32, memory::format_tag::ab);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const dnnl::matmul::primitive_desc description(
      dnnl::matmul::desc(x, memory::desc({shape.inner, shape.width}, type, memory::format_tag::any), out), attributes,
      onednn_engine());
  const memory::desc weight = description.weights_desc();
  const memory::desc scratchpad = description.scratchpad_desc();
  auto primitive = std::make_shared<OnednnPrimitive>(
      dnnl::matmul(description),
      std::vector<OnednnPrimitive::Argument>{{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, weight}, {DNNL_ARG_DST, out}},
      scratchpad);
  auto tensors = std::make_shared<CaseTensors>(device);
  const auto bytes = [&](const memory::desc& layout) {
    return tensors->zeros(DType::kI8, Shape{static_cast<std::int64_t>(layout.get_size()) + 1}).data();
  };
  std::array<void*, 4> pointers{bytes(x), bytes(weight), bytes(out), bytes(scratchpad)};
  return [primitive, pointers, tensors](ExecutionContext& context) {
    prepare_onednn(context.traits());
    primitive->execute(pointers);
  };
}

}  // namespace

CaseList matmul_cases(device::Device& device) {
  std::vector<OpCase> cases;
  for (const DType dtype : case_dtypes(device.traits())) {
    const bool full = full_size(device.traits());
    for (const ProductShape& shape : full ? std::span<const ProductShape>(kFullSize) : kShapes) {
      auto tensors = std::make_shared<CaseTensors>(device);
      MatmulArgs args;
      args.x = tensors->random(dtype, Shape{2, shape.tokens, shape.inner});
      OCTAVO_ASSIGN_OR_RETURN(
          args.weight,
          pack_matmul_weight(device, tensors->random(DType::kF16, Shape{shape.width, shape.inner}, 0.05f), dtype));
      args.epilogue.bias = tensors->random(full ? dtype : DType::kF32, Shape{shape.width});
      args.epilogue.activation = shape.activation;
      const bool narrow_out = full || shape.activation != Activation::kNone;  // read by the next product alone
      args.out = tensors->zeros(narrow_out ? dtype : DType::kF32, Shape{2, shape.tokens, shape.width});
      if (shape.gated_residual) {
        args.epilogue.gate = tensors->random(DType::kF32, Shape{2, shape.width});
        args.epilogue.residual = args.out;
      }
      const double rows = 2.0 * static_cast<double>(shape.tokens);
      const auto width = static_cast<double>(shape.width);
      const auto inner = static_cast<double>(shape.inner);
      const auto bytes = static_cast<double>(args.x.byte_count() + args.out.byte_count()) + 2 * width * inner;
      cases.push_back(make_case(
          matmul_table(), matmul, device.traits(), tensors, args,
          fmt::format("{} {}x{}x{} {}", shape.name, 2 * shape.tokens, shape.width, shape.inner, dtype_name(dtype)),
          2 * rows * width * inner, bytes));
      if (!full) cases.back().library_alone = onednn_alone(device, shape, dtype);
    }
  }
  return cases;
}

}  // namespace octavo::ops
