#include "ops/embedding/embedding.h"

#include "ops/embedding/embedding_kernels.h"
#include "ops/parallel_rows.h"
#include "ops/require.h"
#include "ops/vector_row.h"

namespace octavo::ops {
namespace {

void require_table(std::string_view op, std::string_view argument, const TensorView& view) {
  require_rank(op, argument, view, 2);
  require_dtype(op, argument, view, {DType::kF32, DType::kF16, DType::kBF16});
}

void embedding_vector(ExecutionContext& context, const EmbeddingArgs& args, void*) {
  run_rows(context, args, args.ids.dim(0) * args.ids.dim(1), args.table.dim(1), embedding_rows);
}

void relative_bias_shifted_rows(ExecutionContext& context, const RelativeBiasArgs& args, void*) {
  run_rows(context, args, args.out.dim(0), args.out.dim(1) * args.out.dim(2), relative_bias_heads);
}

}  // namespace

KernelTable<EmbeddingArgs>& embedding_table() {
  static KernelTable<EmbeddingArgs> table("embedding",
                                          {{.name = "vector", .supports = has_vectors, .run = embedding_vector},
                                           {.name = "reference", .run = embedding_reference}});
  return table;
}

void embedding(ExecutionContext& context, const EmbeddingArgs& args) {
  constexpr std::string_view op = "embedding";
  require_rank(op, "ids", args.ids, 2);
  require_dtype(op, "ids", args.ids, {DType::kI32});
  require_table(op, "table", args.table);
  require_shape(op, "out", args.out, Shape{args.ids.dim(0), args.ids.dim(1), args.table.dim(1)});
  require_dtype(op, "out", args.out, {DType::kF32});
  if (args.positions.defined()) {
    require_table(op, "positions", args.positions);
    OCTAVO_CHECK(args.positions.dim(0) >= args.ids.dim(1) && args.positions.dim(1) == args.table.dim(1),
                 "op embedding: positions {} for ids {} and table {}", args.positions.shape().to_string(),
                 args.ids.shape().to_string(), args.table.shape().to_string());
  }
  embedding_table().dispatch(context, args);
}

KernelTable<TimestepEmbeddingArgs>& timestep_embedding_table() {
  // A few hundred rows once a picture: the plain row is fast enough to be the only one.
  static KernelTable<TimestepEmbeddingArgs> table("timestep_embedding",
                                                  {{.name = "reference", .run = timestep_embedding_reference}});
  return table;
}

void timestep_embedding(ExecutionContext& context, const TimestepEmbeddingArgs& args) {
  constexpr std::string_view op = "timestep_embedding";
  require_rank(op, "timesteps", args.timesteps, 1);
  require_dtype(op, "timesteps", args.timesteps, {DType::kF32});
  require_rank(op, "out", args.out, 2);
  require_dtype(op, "out", args.out, {DType::kF32});
  OCTAVO_CHECK(args.out.dim(0) == args.timesteps.dim(0) && args.out.dim(1) % 2 == 0,
               "op timestep_embedding: out {} for {} timesteps", args.out.shape().to_string(), args.timesteps.dim(0));
  timestep_embedding_table().dispatch(context, args);
}

KernelTable<RelativeBiasArgs>& relative_bias_table() {
  static KernelTable<RelativeBiasArgs> table("relative_bias",
                                             {{.name = "shifted_rows", .run = relative_bias_shifted_rows},
                                              {.name = "reference", .run = relative_bias_reference}});
  return table;
}

void relative_bias(ExecutionContext& context, const RelativeBiasArgs& args) {
  constexpr std::string_view op = "relative_bias";
  require_table(op, "table", args.table);
  require_rank(op, "out", args.out, 3);
  require_dtype(op, "out", args.out, {DType::kF32});
  require_shape(op, "table", args.table, Shape{32, args.out.dim(0)});
  OCTAVO_CHECK(args.out.dim(1) == args.out.dim(2), "op relative_bias: out {} is not square",
               args.out.shape().to_string());
  relative_bias_table().dispatch(context, args);
}

}  // namespace octavo::ops
