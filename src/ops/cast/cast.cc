#include "ops/cast/cast.h"

#include "ops/cast/cast_kernels.h"
#include "ops/parallel_rows.h"
#include "ops/require.h"
#include "ops/vector_row.h"

namespace octavo::ops {
namespace {

void cast_vector(ExecutionContext& context, const CastArgs& args, void*) {
  if (args.x.element_count() == 0) return;
  run_rows(context, args, args.x.element_count() / args.x.dim(-1), args.x.dim(-1), cast_rows);
}

}  // namespace

KernelTable<CastArgs>& cast_table() {
  static KernelTable<CastArgs> table("cast", {{.name = "vector", .supports = has_vectors, .run = cast_vector},
                                              {.name = "reference", .run = cast_reference}});
  return table;
}

void cast(ExecutionContext& context, const CastArgs& args) {
  constexpr std::string_view op = "cast";
  OCTAVO_CHECK(args.x.rank() >= 1 && args.x.rank() <= 4, "op cast: x is {}, expected rank 1 to 4",
               args.x.shape().to_string());
  require_dtype(op, "x", args.x, {DType::kF32, DType::kF16, DType::kBF16});
  require_shape(op, "out", args.out, args.x.shape());
  require_dtype(op, "out", args.out, {DType::kF32, DType::kF16, DType::kBF16});
  cast_table().dispatch(context, args);
}

}  // namespace octavo::ops
