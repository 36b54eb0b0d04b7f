// The rows of the embedding tables.
#pragma once

#include "ops/embedding/embedding.h"

namespace octavo::ops {

/// T5's bucket of a signed distance key - query: 16 buckets a direction, exact below 8, logarithmic up to 128.
int relative_bucket(std::int64_t distance);

void embedding_reference(ExecutionContext& context, const EmbeddingArgs& args, void* scratch);
void timestep_embedding_reference(ExecutionContext& context, const TimestepEmbeddingArgs& args, void* scratch);
void relative_bias_reference(ExecutionContext& context, const RelativeBiasArgs& args, void* scratch);

}  // namespace octavo::ops
