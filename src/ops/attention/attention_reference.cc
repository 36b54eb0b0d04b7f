// Attention as its formula says, one query at a time, in double.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "ops/attention/attention_kernels.h"
#include "ops/rows.h"

namespace octavo::ops {

void attention_reference(ExecutionContext&, const AttentionArgs& args, void*) {
  const std::int64_t keys = args.k.dim(2);
  const std::int64_t width = args.q.dim(3);
  const double quant = args.out_quant_scale.defined() ? args.out_quant_scale.f32()[0] : 1.0;
  std::vector<double> weights(static_cast<std::size_t>(keys));  // the reference may allocate; no fast row does
  for (std::int64_t b = 0; b < args.q.dim(0); ++b) {
    for (std::int64_t h = 0; h < args.q.dim(1); ++h) {
      for (std::int64_t query = 0; query < args.q.dim(2); ++query) {
        const Row q(args.q, {b, h, query});
        const std::int64_t visible = args.causal ? std::min(query + 1, keys) : keys;
        double largest = -std::numeric_limits<double>::infinity();
        for (std::int64_t key = 0; key < visible; ++key) {
          const Row k(args.k, {b, h, key});
          double score = 0;
          for (std::int64_t i = 0; i < width; ++i) score += static_cast<double>(q[i]) * k[i];
          score *= args.score_factor;
          if (args.bias.defined()) score += Row(args.bias, {h, query})[key];
          weights[key] = score;
          largest = std::max(largest, score);
        }
        double sum = 0;
        for (std::int64_t key = 0; key < visible; ++key) sum += weights[key] = std::exp(weights[key] - largest);
        const Row out(args.out, {b, query});
        for (std::int64_t i = 0; i < width; ++i) {
          double value = 0;
          for (std::int64_t key = 0; key < visible; ++key) value += weights[key] * Row(args.v, {b, h, key})[i];
          out.set(h * width + i, static_cast<float>(value / sum * args.value_factor * quant));
        }
      }
    }
  }
}

}  // namespace octavo::ops
