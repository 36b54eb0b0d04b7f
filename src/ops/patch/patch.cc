#include "ops/patch/patch.h"

#include "ops/parallel_rows.h"
#include "ops/patch/patch_kernels.h"
#include "ops/require.h"
#include "ops/vector_row.h"

namespace octavo::ops {
namespace {

void patchify_vector(ExecutionContext& context, const PatchifyArgs& args, void*) {
  run_rows(context, args, args.out.dim(0) * (args.latents.dim(2) / 2), 2 * args.latents.dim(3) * args.latents.dim(1),
           patchify_rows);
}

void add_positions_vector(ExecutionContext& context, const AddPositionsArgs& args, void*) {
  run_rows(context, args, args.x.dim(0) * args.x.dim(1), args.x.dim(2), add_positions_rows);
}

void unpatchify_vector(ExecutionContext& context, const UnpatchifyArgs& args, void*) {
  run_rows(context, args, args.out.dim(0) * args.out.dim(2), args.out.dim(1) * args.out.dim(3), unpatchify_rows);
}

bool has_vectors_and_f32_stream(const AddPositionsArgs& args, const DeviceTraits& traits) {
  return traits.has_avx2 && args.x.dtype() == DType::kF32;
}

}  // namespace

KernelTable<PatchifyArgs>& patchify_table() {
  static KernelTable<PatchifyArgs> table("patchify",
                                         {{.name = "vector", .supports = has_vectors, .run = patchify_vector},
                                          {.name = "reference", .run = patchify_reference}});
  return table;
}

void patchify(ExecutionContext& context, const PatchifyArgs& args) {
  constexpr std::string_view op = "patchify";
  require_rank(op, "latents", args.latents, 4);
  require_dtype(op, "latents", args.latents, {DType::kF32});
  require_rank(op, "out", args.out, 3);
  require_dtype(op, "out", args.out, {DType::kF32, DType::kBF16});
  const auto& latents = args.latents;
  OCTAVO_CHECK(latents.dim(2) % 2 == 0 && latents.dim(3) % 2 == 0, "op patchify: latents {} have odd sides",
               latents.shape().to_string());
  OCTAVO_CHECK(latents.dim(0) > 0 && args.out.dim(0) % latents.dim(0) == 0, "op patchify: {} rows from {} latents",
               args.out.dim(0), latents.dim(0));
  require_shape(op, "out", args.out,
                Shape{args.out.dim(0), latents.dim(2) / 2 * (latents.dim(3) / 2), 4 * latents.dim(1)});
  patchify_table().dispatch(context, args);
}

KernelTable<AddPositionsArgs>& add_positions_table() {
  static KernelTable<AddPositionsArgs> table(
      "add_positions", {{.name = "vector", .supports = has_vectors_and_f32_stream, .run = add_positions_vector},
                        {.name = "reference", .run = add_positions_reference}});
  return table;
}

void add_positions(ExecutionContext& context, const AddPositionsArgs& args) {
  constexpr std::string_view op = "add_positions";
  require_rank(op, "x", args.x, 3);
  require_dtype(op, "x", args.x, {DType::kF32, DType::kBF16});
  require_rank(op, "table", args.table, 3);
  require_dtype(op, "table", args.table, {DType::kF32, DType::kF16, DType::kBF16});
  require_shape(op, "table", args.table, Shape{args.table.dim(0), args.table.dim(0), args.x.dim(2)});
  OCTAVO_CHECK(args.rows > 0 && args.columns > 0 && args.rows <= args.table.dim(0) && args.columns <= args.table.dim(1),
               "op add_positions: {} x {} patches of a table {}", args.rows, args.columns,
               args.table.shape().to_string());
  require_shape(op, "x", args.x, Shape{args.x.dim(0), std::int64_t{args.rows} * args.columns, args.x.dim(2)});
  add_positions_table().dispatch(context, args);
}

KernelTable<UnpatchifyArgs>& unpatchify_table() {
  static KernelTable<UnpatchifyArgs> table("unpatchify",
                                           {{.name = "vector", .supports = has_vectors, .run = unpatchify_vector},
                                            {.name = "reference", .run = unpatchify_reference}});
  return table;
}

void unpatchify(ExecutionContext& context, const UnpatchifyArgs& args) {
  constexpr std::string_view op = "unpatchify";
  require_rank(op, "out", args.out, 4);
  require_dtype(op, "out", args.out, {DType::kF32});
  OCTAVO_CHECK(args.out.dim(2) % 2 == 0 && args.out.dim(3) % 2 == 0, "op unpatchify: out {} has odd sides",
               args.out.shape().to_string());
  require_shape(op, "tokens", args.tokens,
                Shape{args.out.dim(0), args.out.dim(2) / 2 * (args.out.dim(3) / 2), 4 * args.out.dim(1)});
  require_dtype(op, "tokens", args.tokens, {DType::kF32});
  unpatchify_table().dispatch(context, args);
}

}  // namespace octavo::ops
