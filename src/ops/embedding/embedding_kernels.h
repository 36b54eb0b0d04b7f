// The rows of the embedding tables.
#pragma once

#include "ops/embedding/embedding.h"

namespace octavo::ops {

/// T5's bucket of a signed distance key - query: 16 buckets a direction, exact below 8, logarithmic up to 128.
int relative_bucket(std::int64_t distance);

void embedding_reference(ExecutionContext& context, const EmbeddingArgs& args, void* scratch);
void timestep_embedding_reference(ExecutionContext& context, const TimestepEmbeddingArgs& args, void* scratch);
void relative_bias_reference(ExecutionContext& context, const RelativeBiasArgs& args, void* scratch);

/// Rows [begin, end) of the flattened [B, T].
void embedding_rows(const EmbeddingArgs& args, std::int64_t begin, std::int64_t end);
/// Heads [begin, end).
void relative_bias_heads(const RelativeBiasArgs& args, std::int64_t begin, std::int64_t end);

}  // namespace octavo::ops
