// Attention tiled over queries and keys with a running softmax (Dao et al., FlashAttention; Milakov and Gimelshein,
// "Online normalizer calculation for softmax"): the S x S scores exist only as a tile in the first-level cache.
//
// Mapping: keys (and for bf16 values) are first rearranged into panels that the products read with whole vectors, once
//   for each (batch row, head). Then each task is kQueryTile queries of one head; it walks the keys in blocks of
//   kKeyBlock: scores, softmax of each row, weights times values into the sums of the tile. Tasks are handed out one by
//   one, because causal ones differ in size.
// Order: a query's result is computed by one task in an order that depends on its own index and the number of keys
//   alone, so it does not depend on the other queries or the threads.
// FLOPs 4 B H Sq Sk Dh (half when causal). Bytes: q, k, v, out once, panels 2 * B H Sk Dh more, all in cache between
//   the tasks of one head.
// Measured on one core (AMD EPYC of family 25, model 17, 2026-11-24), 410 x 410, Dh 64: f32 87 of 116 GFLOP/s, bf16 143
// of
//   230; Dh 96, 1024 x 1024: 100 and 177. Two thirds of the bf16 time are products at the peak rate, a quarter softmax.
#include <algorithm>
#include <limits>

#include "ops/vector_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/attention/attention_flash.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h.
#include "ops/attention/attention_kernels.h"
#include "ops/attention/attention_plan.h"
#include "ops/rows.h"
#include "ops/tile_product-inl.h"
#include "ops/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace octavo::ops::HWY_NAMESPACE {

/// e^x for x <= 0, 0 below -87; NaN stays NaN. 2^n times a polynomial on [-1/2, 1/2], our own minimax fit of relative
/// error 9.2e-8; the argument is reduced with log2(e) in two parts. With roundings under 3e-7 (attention_test.cc).
template <class D>
HWY_INLINE hn::Vec<D> exp_of_negative(D d, hn::Vec<D> x) {
  const hn::RebindToSigned<D> di;
  const auto n = hn::Round(hn::Mul(x, hn::Set(d, 1.44269504f)));
  const auto f = hn::MulAdd(x, hn::Set(d, 1.92596303e-8f), hn::MulSub(x, hn::Set(d, 1.44269502f), n));
  auto p = hn::Set(d, 1.32647271e-3f);
  p = hn::MulAdd(p, f, hn::Set(d, 9.67151286e-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 5.55073375e-2f));
  p = hn::MulAdd(p, f, hn::Set(d, 2.40222421e-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 6.93146978e-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  const auto exponent = hn::Add(hn::ConvertTo(di, n), hn::Set(di, 127));
  const auto power = hn::BitCast(d, hn::ShiftLeft<23>(exponent));  // times, not added: a NaN stays one
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -87.0f)), hn::Mul(p, power));
}

/// 16 x 16 words: to[i * to_stride + j] = from[j][i].
void transpose_words(const std::int32_t* from, std::int64_t from_stride, int rows, std::int32_t* to,
                     std::int64_t to_stride, int words) {
  for (int j = 0; j < rows; ++j) {
    for (int i = 0; i < words; ++i) to[i * to_stride + j] = from[j * from_stride + i];
  }
}

/// One panel: kPanelKeys keys of one head, transposed, absent keys zero.
void pack_key_panel(const AttentionArgs& args, const AttentionPlan& plan, std::int64_t head, std::int64_t panel,
                    std::byte* panels) {
  const std::int64_t b = head / args.k.dim(1);
  const std::int64_t h = head % args.k.dim(1);
  const std::int64_t first = panel * kPanelKeys;
  const auto keys = static_cast<int>(std::min<std::int64_t>(kPanelKeys, args.k.dim(2) - first));
  const auto depth = static_cast<int>(plan.depth);
  auto* to = reinterpret_cast<std::int32_t*>(panels) + (head * plan.panels + panel) * kPanelKeys * plan.depth;
  if (keys < kPanelKeys) std::fill_n(to, kPanelKeys * depth, 0);
  const bool widens = !plan.bf16 && args.k.dtype() == DType::kBF16;
  if (!widens) {
    const std::int64_t stride = plan.bf16 ? args.k.stride(2) / 2 : args.k.stride(2);
    transpose_words(static_cast<const std::int32_t*>(Row::address(args.k, {b, h, first})), stride, keys, to, kPanelKeys,
                    depth);
    return;
  }
  auto* to_f32 = reinterpret_cast<float*>(to);
  for (int j = 0; j < keys; ++j) {
    const auto* from = static_cast<const BFloat16*>(Row::address(args.k, {b, h, first + j}));
    for (int i = 0; i < depth; ++i) to_f32[i * kPanelKeys + j] = to_float(from[i]);
  }
}

/// Values of kPanelKeys keys of one head: pairs of keys interleaved for bf16, or widened to f32.
void pack_values(const AttentionArgs& args, const AttentionPlan& plan, std::int64_t head, std::int64_t panel,
                 std::byte* values) {
  const std::int64_t b = head / args.v.dim(1);
  const std::int64_t h = head % args.v.dim(1);
  const std::int64_t width = args.v.dim(3);
  const std::int64_t first = panel * kPanelKeys;
  const std::int64_t keys = std::min<std::int64_t>(kPanelKeys, args.v.dim(2) - first);
  const std::int64_t padded = plan.panels * kPanelKeys;
  if (!plan.bf16) {
    auto* to = reinterpret_cast<float*>(values) + (head * padded + first) * width;
    for (std::int64_t j = 0; j < keys; ++j) {
      const auto* from = static_cast<const BFloat16*>(Row::address(args.v, {b, h, first + j}));
      for_each_vector(width, [&](auto d, std::int64_t i) HWY_ATTR { store(d, load(d, from + i), to + j * width + i); });
    }
    return;
  }
  auto* to = reinterpret_cast<std::uint16_t*>(values) + (head * padded + first) * width;
  for (std::int64_t j = 0; j < keys; j += 2, to += 2 * width) {
    const auto* even = static_cast<const std::uint16_t*>(Row::address(args.v, {b, h, first + j}));
    const bool has_odd = j + 1 < keys;
    const auto* odd = has_odd ? static_cast<const std::uint16_t*>(Row::address(args.v, {b, h, first + j + 1})) : even;
    const hn::ScalableTag<std::uint16_t> d16;
    const auto lanes = static_cast<std::int64_t>(hn::Lanes(d16));
    std::int64_t i = 0;
    for (; has_odd && i + lanes <= width; i += lanes) {
      hn::StoreInterleaved2(hn::LoadU(d16, even + i), hn::LoadU(d16, odd + i), d16, to + 2 * i);
    }
    for (; i < width; ++i) {
      to[2 * i] = even[i];
      to[2 * i + 1] = has_odd ? odd[i] : std::uint16_t{0};
    }
  }
}

void pack_panels(const AttentionArgs& args, const AttentionPlan& plan, std::byte* scratch, std::int64_t begin,
                 std::int64_t end) {
  for (std::int64_t i = begin; i < end; ++i) {
    pack_key_panel(args, plan, i / plan.panels, i % plan.panels, scratch);
    if (plan.value_bytes > 0) pack_values(args, plan, i / plan.panels, i % plan.panels, scratch + plan.key_bytes);
  }
}

/// What a task keeps on its stack.
struct Tile {
  alignas(64) float scores[kQueryTile * kKeyBlock];
  alignas(64) BFloat16 weights[kQueryTile * kKeyBlock];
  alignas(64) float sums[kQueryTile * kMaxHeadWidth];
  float largest[kQueryTile];
  float total[kQueryTile];
};

/// Scores of one row become weights e^(score - largest so far); the row's earlier sums are rescaled.
/// `visible` of the block's keys count, `padded` (whole vectors) are written. Without a bias the factor is applied
/// inside the exponential's argument, which saves a pass of stores.
HWY_INLINE void softmax_row(const AttentionArgs& args, const float* bias, int visible, int padded, int width,
                            float* scores, float* sums, float& largest, float& total) {
  const hn::ScalableTag<float> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  constexpr float kMasked = -std::numeric_limits<float>::infinity();
  float factor = args.score_factor;
  if (bias != nullptr) {
    for (int i = 0; i < visible; ++i) scores[i] = scores[i] * factor + bias[i];
    factor = 1.0f;
  } else if (factor <= 0.0f) {  // below, the largest score must be the largest product, and a mask times 0 is no mask
    for (int i = 0; i < visible; ++i) scores[i] *= factor;
    factor = 1.0f;
  }
  for (int i = visible; i < padded; ++i) scores[i] = kMasked;
  auto largest0 = hn::LoadU(d, scores);
  auto largest1 = largest0;
  int i = 0;
  for (; i + 2 * lanes <= padded; i += 2 * lanes) {
    largest0 = hn::Max(largest0, hn::LoadU(d, scores + i));
    largest1 = hn::Max(largest1, hn::LoadU(d, scores + i + lanes));
  }
  if (i < padded) largest0 = hn::Max(largest0, hn::LoadU(d, scores + i));
  const float new_largest = std::max(largest, hn::GetLane(hn::MaxOfLanes(d, hn::Max(largest0, largest1))));
  const auto factors = hn::Set(d, factor);
  const auto shift = hn::Set(d, new_largest * factor);
  auto sum0 = hn::Zero(d);
  auto sum1 = hn::Zero(d);
  i = 0;
  for (; i + 2 * lanes <= padded; i += 2 * lanes) {
    const auto weight0 = exp_of_negative(d, hn::MulSub(hn::LoadU(d, scores + i), factors, shift));
    const auto weight1 = exp_of_negative(d, hn::MulSub(hn::LoadU(d, scores + i + lanes), factors, shift));
    hn::StoreU(weight0, d, scores + i);
    hn::StoreU(weight1, d, scores + i + lanes);
    sum0 = hn::Add(sum0, weight0);
    sum1 = hn::Add(sum1, weight1);
  }
  if (i < padded) {
    const auto weight = exp_of_negative(d, hn::MulSub(hn::LoadU(d, scores + i), factors, shift));
    hn::StoreU(weight, d, scores + i);
    sum0 = hn::Add(sum0, weight);
  }
  const float row_sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(sum0, sum1)));
  if (total > 0.0f && new_largest != largest) {
    const float rescale = hn::GetLane(exp_of_negative(d, hn::Set(d, (largest - new_largest) * factor)));
    total *= rescale;
    for (int j = 0; j < width; j += lanes) {
      hn::StoreU(hn::Mul(hn::LoadU(d, sums + j), hn::Set(d, rescale)), d, sums + j);
    }
  }
  total += row_sum;
  largest = new_largest;
}

void attention_task(const AttentionArgs& args, const AttentionPlan& plan, const std::byte* scratch, std::int64_t task) {
  const std::int64_t head = task / plan.query_tiles;
  const std::int64_t b = head / args.q.dim(1);
  const std::int64_t h = head % args.q.dim(1);
  const std::int64_t first_query = task % plan.query_tiles * kQueryTile;
  const auto rows = static_cast<int>(std::min<std::int64_t>(kQueryTile, args.q.dim(2) - first_query));
  const auto width = static_cast<int>(args.q.dim(3));
  const std::int64_t keys = args.causal ? std::min<std::int64_t>(args.k.dim(2), first_query + rows) : args.k.dim(2);
  const auto multiply = plan.bf16 ? tile_product_bf16 : tile_product_f32;
  constexpr std::int64_t kWord = 4;

  Tile tile;
  std::fill_n(tile.largest, kQueryTile, -std::numeric_limits<float>::infinity());
  std::fill_n(tile.total, kQueryTile, 0.0f);

  // q as the products read it: in place, or widened.
  const void* q = Row::address(args.q, {b, h, first_query});
  std::int64_t q_stride = plan.bf16 ? args.q.stride(2) / 2 : args.q.stride(2);
  alignas(64) float q_f32[kQueryTile * kMaxHeadWidth];
  if (!plan.bf16 && args.q.dtype() == DType::kBF16) {
    for (int r = 0; r < rows; ++r) {
      const auto* from = static_cast<const BFloat16*>(Row::address(args.q, {b, h, first_query + r}));
      for_each_vector(width,
                      [&](auto d, std::int64_t i) HWY_ATTR { store(d, load(d, from + i), q_f32 + r * width + i); });
    }
    q = q_f32;
    q_stride = width;
  }

  for (std::int64_t first_key = 0; first_key < keys; first_key += kKeyBlock) {
    const auto block = static_cast<int>(std::min<std::int64_t>(kKeyBlock, keys - first_key));
    const int panels = (block + kPanelKeys - 1) / kPanelKeys;
    const int padded = panels * kPanelKeys;
    for (int panel = 0; panel < panels; ++panel) {
      const std::int64_t panel_index = head * plan.panels + first_key / kPanelKeys + panel;
      multiply({.a = q,
                .a_stride = q_stride,
                .b = scratch + panel_index * kPanelKeys * plan.depth * kWord,
                .b_stride = kPanelKeys,
                .c = tile.scores + panel * kPanelKeys,
                .c_stride = kKeyBlock,
                .rows = rows,
                .depth = static_cast<int>(plan.depth),
                .columns = kPanelKeys,
                .accumulate = false});
    }
    for (int r = 0; r < rows; ++r) {
      const std::int64_t query = first_query + r;
      const int visible =
          args.causal ? static_cast<int>(std::clamp<std::int64_t>(query + 1 - first_key, 0, block)) : block;
      const float* bias =
          args.bias.defined() ? static_cast<const float*>(Row::address(args.bias, {h, query})) + first_key : nullptr;
      softmax_row(args, bias, visible, padded, width, tile.scores + r * kKeyBlock, tile.sums + r * width,
                  tile.largest[r], tile.total[r]);
      if (plan.bf16) narrow_to_bf16(tile.scores + r * kKeyBlock, tile.weights + r * kKeyBlock, padded);
    }
    TileProduct values{.a = tile.scores,
                       .a_stride = kKeyBlock,
                       .b = nullptr,
                       .b_stride = width,
                       .c = tile.sums,
                       .c_stride = width,
                       .rows = rows,
                       .depth = block,
                       .columns = width,
                       .accumulate = first_key > 0};
    if (plan.value_bytes == 0) {
      values.b = Row::address(args.v, {b, h, first_key});
      values.b_stride = args.v.stride(2);
    } else {
      const std::int64_t row_bytes = width * (plan.bf16 ? 2 : 4);
      values.b = scratch + plan.key_bytes + (head * plan.panels * kPanelKeys + first_key) * row_bytes;
    }
    if (plan.bf16) {
      values.a = tile.weights;
      values.a_stride = kKeyBlock / 2;
      values.depth = (block + 1) / 2;
    }
    multiply(values);
  }

  for (int r = 0; r < rows; ++r) {
    with_f32_or_bf16(args.out.dtype(), Row::address(args.out, {b, first_query + r}), [&](auto* to) HWY_ATTR {
      const float inverse = 1.0f / tile.total[r];
      const float* sums = tile.sums + r * width;
      for_each_vector(width, [&](auto d, std::int64_t i) HWY_ATTR {
        store(d, hn::Mul(load(d, sums + i), hn::Set(d, inverse)), to + h * width + i);
      });
    });
  }
}

void attention_tasks(const AttentionArgs& args, const AttentionPlan& plan, const std::byte* scratch, std::int64_t begin,
                     std::int64_t end) {
  for (std::int64_t task = begin; task < end; ++task) attention_task(args, plan, scratch, task);
}

}  // namespace octavo::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "device/cpu/parallel_for.h"
#include "ops/parallel_rows.h"

namespace octavo::ops {

HWY_EXPORT(pack_panels);
HWY_EXPORT(attention_tasks);

void attention_flash(ExecutionContext& context, const AttentionArgs& args, void* scratch) {
  const DeviceTraits& traits = context.traits();
  limit_vectors(traits);
  const AttentionPlan plan = plan_attention(args, traits);
  auto* panels = static_cast<std::byte*>(scratch);
  const std::int64_t heads = args.q.dim(0) * args.q.dim(1);
  device::parallel_for(traits, heads * plan.panels, 1, [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(pack_panels)(args, plan, panels, begin, end);
  });
  device::parallel_for_dynamic(traits, heads * plan.query_tiles, 1, [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(attention_tasks)(args, plan, panels, begin, end);
  });
}

}  // namespace octavo::ops
#endif  // HWY_ONCE
