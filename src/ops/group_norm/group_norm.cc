#include "ops/group_norm/group_norm.h"

#include "ops/group_norm/group_norm_kernels.h"
#include "ops/require.h"

namespace octavo::ops {

KernelTable<GroupNormArgs>& group_norm_table() {
  static KernelTable<GroupNormArgs> table("group_norm", {{.name = "vector",
                                                          .supports = group_norm_vector_supports,
                                                          .scratch_bytes = group_norm_vector_scratch_bytes,
                                                          .run = group_norm_vector},
                                                         {.name = "reference", .run = group_norm_reference}});
  return table;
}

void group_norm(ExecutionContext& context, const GroupNormArgs& args) {
  constexpr std::string_view op = "group_norm";
  require_rank(op, "x", args.x, 4);
  require_dtype(op, "x", args.x, {DType::kF32, DType::kBF16});
  require_contiguous(op, "x", args.x);
  const std::int64_t channels = args.x.dim(3);
  OCTAVO_CHECK(args.groups > 0 && channels % args.groups == 0, "op group_norm: {} groups of {} channels", args.groups,
               channels);
  for (const auto& [name, view] : {std::pair{"weight", args.weight}, std::pair{"bias", args.bias}}) {
    require_shape(op, name, view, Shape{channels});
    require_dtype(op, name, view, {DType::kF32});
  }
  require_shape(op, "out", args.out, args.x.shape());
  require_dtype(op, "out", args.out, {DType::kF32, DType::kBF16});
  require_contiguous(op, "out", args.out);
  if (args.x.element_count() == 0) return;
  group_norm_table().dispatch(context, args);
}

}  // namespace octavo::ops
