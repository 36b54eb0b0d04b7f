// The attentions of octavo-tiny: joint, image queries alone (last block), encoders, the autoencoder's one head.
#include <span>

#include "ops/attention/attention.h"
#include "ops/op_cases.h"

namespace octavo::ops {
namespace {

struct AttentionShape {
  const char* name;
  std::int64_t batch, heads, queries, keys, width;
  bool bias = false;
  bool causal = false;
};

constexpr AttentionShape kShapes[] = {
    {"joint", 2, 3, 410, 410, 64},           {"joint, image queries", 2, 3, 256, 410, 64},
    {"clip", 2, 4, 77, 77, 64, false, true}, {"t5", 2, 4, 77, 77, 64, true, false},
    {"autoencoder", 1, 1, 1024, 1024, 96},
};

/// Of Large at 1024x1024 with 333 text tokens.
constexpr AttentionShape kFullSize[] = {
    {"joint", 2, 38, 4429, 4429, 64},         {"joint, image queries", 2, 38, 4096, 4429, 64},
    {"clip", 1, 20, 77, 77, 64, false, true}, {"t5", 1, 64, 256, 256, 64, true, false},
    {"autoencoder", 1, 1, 16384, 16384, 512},
};

}  // namespace

CaseList attention_cases(device::Device& device) {
  std::vector<OpCase> cases;
  std::vector<DType> dtypes = case_dtypes(device.traits());
  if (full_size(device.traits())) dtypes.push_back(DType::kF16);  // as kernels of our own want it; out is bf16
  for (const DType dtype : dtypes) {
    for (const AttentionShape& shape :
         full_size(device.traits()) ? std::span<const AttentionShape>(kFullSize) : kShapes) {
      auto tensors = std::make_shared<CaseTensors>(device);
      AttentionArgs args;
      args.q = tensors->random(dtype, Shape{shape.batch, shape.heads, shape.queries, shape.width});
      args.k = tensors->random(dtype, Shape{shape.batch, shape.heads, shape.keys, shape.width});
      args.v = tensors->random(dtype, Shape{shape.batch, shape.heads, shape.keys, shape.width});
      if (shape.bias) args.bias = tensors->random(DType::kF32, Shape{shape.heads, shape.queries, shape.keys});
      args.score_factor = 0.125f;
      args.causal = shape.causal;
      args.out = tensors->zeros(dtype == DType::kF16 ? DType::kBF16 : dtype,
                                Shape{shape.batch, shape.queries, shape.heads * shape.width});
      const double pairs = static_cast<double>(shape.batch * shape.heads * shape.queries) *
                           static_cast<double>(shape.keys) * (shape.causal ? 0.5 : 1.0);
      const double bytes =
          static_cast<double>(args.q.byte_count() + args.k.byte_count() + args.v.byte_count() + args.out.byte_count());
      cases.push_back(make_case(attention_table(), attention, device.traits(), tensors, args,
                                fmt::format("{} B{} H{} {}x{} Dh{} {}", shape.name, shape.batch, shape.heads,
                                            shape.queries, shape.keys, shape.width, dtype_name(dtype)),
                                4 * pairs * static_cast<double>(shape.width), bytes));
    }
  }
  if (!full_size(device.traits())) return cases;
  // In 8 bits: q and k as codes; the result as codes with a static scale; all of it.
  struct Types {
    DType q, v, out;
  };
  for (const auto& [q, v, out] :
       {Types{DType::kE4M3, DType::kF16, DType::kBF16}, Types{DType::kF16, DType::kF16, DType::kE4M3},
        Types{DType::kE4M3, DType::kE4M3, DType::kE4M3}}) {
    const AttentionShape& shape = kFullSize[0];
    auto tensors = std::make_shared<CaseTensors>(device);
    const Shape operand{shape.batch, shape.heads, shape.queries, shape.width};
    constexpr float kSpread = 4.0f;
    AttentionArgs args;
    args.q = tensors->random(q, operand, q == DType::kE4M3 ? kSpread : 1.0f);
    args.k = tensors->random(q, operand, q == DType::kE4M3 ? kSpread : 1.0f);
    args.v = tensors->random(v, operand, kSpread);
    args.score_factor = q == DType::kE4M3 ? 0.125f / (kSpread * kSpread) : 0.125f;
    args.out = tensors->zeros(out, Shape{shape.batch, shape.queries, shape.heads * shape.width});
    if (out == DType::kE4M3) args.out_quant_scale = tensors->constant(DType::kF32, Shape{1}, 100.0f);
    const double pairs =
        static_cast<double>(shape.batch * shape.heads * shape.queries) * static_cast<double>(shape.keys);
    cases.push_back(make_case(
        attention_table(), attention, device.traits(), tensors, args,
        fmt::format("{} B{} H{} {}x{} Dh{} q {} v {} out {}", shape.name, shape.batch, shape.heads, shape.queries,
                    shape.keys, shape.width, dtype_name(q), dtype_name(v), dtype_name(out)),
        4 * pairs * static_cast<double>(shape.width),
        static_cast<double>(args.q.byte_count() + args.k.byte_count() + args.v.byte_count() + args.out.byte_count())));
  }
  return cases;
}

}  // namespace octavo::ops
