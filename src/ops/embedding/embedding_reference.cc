#include <cmath>

#include "ops/embedding/embedding_kernels.h"
#include "ops/rows.h"

namespace octavo::ops {

void embedding_reference(ExecutionContext&, const EmbeddingArgs& args, void*) {
  for (std::int64_t b = 0; b < args.ids.dim(0); ++b) {
    const std::int32_t* ids = static_cast<const std::int32_t*>(Row::address(args.ids, {b}));
    for (std::int64_t t = 0; t < args.ids.dim(1); ++t) {
      OCTAVO_CHECK(ids[t] >= 0 && ids[t] < args.table.dim(0), "op embedding: id {} of a table of {}", ids[t],
                   args.table.dim(0));
      const Row source(args.table, {ids[t]});
      const Row out(args.out, {b, t});
      for (std::int64_t i = 0; i < args.table.dim(1); ++i) {
        out.set(i, args.positions.defined() ? source[i] + Row(args.positions, {t})[i] : source[i]);
      }
    }
  }
}

void timestep_embedding_reference(ExecutionContext&, const TimestepEmbeddingArgs& args, void*) {
  const std::int64_t half = args.out.dim(1) / 2;
  const Row timesteps(args.timesteps, {});
  for (std::int64_t m = 0; m < args.out.dim(0); ++m) {
    const Row out(args.out, {m});
    for (std::int64_t k = 0; k < half; ++k) {
      // Every intermediate is rounded to float as in diffusers: at t = 1000 one unit in the last place of the
      // frequency moves the phase by 6e-5.
      const float exponent = static_cast<float>(-std::log(10000.0)) * static_cast<float>(k) / static_cast<float>(half);
      const float frequency = static_cast<float>(std::exp(static_cast<double>(exponent)));
      const float phase = timesteps[m] * frequency;
      out.set(k, static_cast<float>(std::cos(static_cast<double>(phase))));
      out.set(half + k, static_cast<float>(std::sin(static_cast<double>(phase))));
    }
  }
}

int relative_bucket(std::int64_t distance) {
  constexpr int kBucketsPerDirection = 16;
  constexpr std::int64_t kExact = 8;
  const int direction = distance > 0 ? kBucketsPerDirection : 0;
  const std::int64_t magnitude = distance < 0 ? -distance : distance;
  if (magnitude < kExact) return direction + static_cast<int>(magnitude);
  // 8 buckets between 8 and 128, evenly in the logarithm; in float, as transformers computes it.
  const float position = std::log(static_cast<float>(magnitude) / 8.0f) / static_cast<float>(std::log(16.0)) * 8.0f;
  const int bucket = static_cast<int>(kExact) + static_cast<int>(position);
  return direction + (bucket < kBucketsPerDirection ? bucket : kBucketsPerDirection - 1);
}

void relative_bias_reference(ExecutionContext&, const RelativeBiasArgs& args, void*) {
  for (std::int64_t h = 0; h < args.out.dim(0); ++h) {
    for (std::int64_t query = 0; query < args.out.dim(1); ++query) {
      const Row out(args.out, {h, query});
      for (std::int64_t key = 0; key < args.out.dim(2); ++key) {
        out.set(key, Row(args.table, {relative_bucket(key - query)})[h]);
      }
    }
  }
}

}  // namespace octavo::ops
