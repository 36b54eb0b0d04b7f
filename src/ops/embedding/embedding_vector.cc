#include <cstring>

#include "ops/vector_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/embedding/embedding_vector.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h.
#include "ops/embedding/embedding_kernels.h"
#include "ops/rows.h"
#include "ops/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace octavo::ops::HWY_NAMESPACE {

void embedding_rows(const EmbeddingArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t width = args.table.dim(1);
  const std::int64_t tokens = args.ids.dim(1);
  for (std::int64_t row = begin; row < end; ++row) {
    const std::int64_t t = row % tokens;
    const std::int32_t id = static_cast<const std::int32_t*>(Row::address(args.ids, {row / tokens}))[t];
    OCTAVO_CHECK(id >= 0 && id < args.table.dim(0), "op embedding: id {} of a table of {}", id, args.table.dim(0));
    auto* out = static_cast<float*>(Row::address(args.out, {row / tokens, t}));
    with_any_float(args.table.dtype(), Row::address(args.table, {id}), [&](const auto* from) HWY_ATTR {
      for_each_vector(width, [&](auto d, std::int64_t i) HWY_ATTR { store(d, load(d, from + i), out + i); });
    });
    if (!args.positions.defined()) continue;
    with_any_float(args.positions.dtype(), Row::address(args.positions, {t}), [&](const auto* position) HWY_ATTR {
      for_each_vector(width, [&](auto d, std::int64_t i)
                                 HWY_ATTR { store(d, hn::Add(load(d, out + i), load(d, position + i)), out + i); });
    });
  }
}

}  // namespace octavo::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace octavo::ops {

HWY_EXPORT(embedding_rows);

void embedding_rows(const EmbeddingArgs& args, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(embedding_rows)(args, begin, end);
}

void relative_bias_heads(const RelativeBiasArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t tokens = args.out.dim(1);
  for (std::int64_t h = begin; h < end; ++h) {
    const auto bias = [&](std::int64_t distance) { return Row(args.table, {relative_bucket(distance)})[h]; };
    const float* previous = nullptr;
    for (std::int64_t query = 0; query < tokens; ++query) {
      auto* out = static_cast<float*>(Row::address(args.out, {h, query}));
      if (previous == nullptr) {
        for (std::int64_t key = 0; key < tokens; ++key) out[key] = bias(key);
      } else {  // depends on key - query alone: the row before, moved by one
        out[0] = bias(-query);
        std::memcpy(out + 1, previous, static_cast<std::size_t>(tokens - 1) * sizeof(float));
      }
      previous = out;
    }
  }
}

}  // namespace octavo::ops
#endif  // HWY_ONCE
