#include "ops/vector_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/patch/patch_vector.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h.
#include "ops/patch/patch_kernels.h"
#include "ops/rows.h"
#include "ops/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace octavo::ops::HWY_NAMESPACE {

void patchify_rows(const PatchifyArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t channels = args.latents.dim(1);
  const std::int64_t rows = args.latents.dim(2) / 2;
  const std::int64_t columns = args.latents.dim(3) / 2;
  const hn::CappedTag<float, 1> one;
  for (std::int64_t row = begin; row < end; ++row) {
    const std::int64_t b = row / rows;
    const std::int64_t y = row % rows;
    with_f32_or_bf16(args.out.dtype(), Row::address(args.out, {b, y * columns}), [&](auto* out) HWY_ATTR {
      for (std::int64_t line = 0; line < 2 * channels; ++line) {  // (c, dy)
        const auto* latents = static_cast<const float*>(
            Row::address(args.latents, {b % args.latents.dim(0), line / 2, 2 * y + line % 2}));
        for (std::int64_t x = 0; x < columns; ++x) {
          auto* pair = out + x * args.out.stride(1) + 2 * line;
          store(one, hn::Set(one, latents[2 * x]), pair);
          store(one, hn::Set(one, latents[2 * x + 1]), pair + 1);
        }
      }
    });
  }
}

void add_positions_rows(const AddPositionsArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t top = (args.table.dim(0) - args.rows) / 2;
  const std::int64_t left = (args.table.dim(1) - args.columns) / 2;
  for (std::int64_t row = begin; row < end; ++row) {
    const std::int64_t token = row % args.x.dim(1);
    auto* x = static_cast<float*>(Row::address(args.x, {row / args.x.dim(1), token}));
    void* position = Row::address(args.table, {top + token / args.columns, left + token % args.columns});
    with_any_float(args.table.dtype(), position, [&](const auto* from) HWY_ATTR {
      for_each_vector(args.x.dim(2), [&](auto d, std::int64_t i)
                                         HWY_ATTR { store(d, hn::Add(load(d, x + i), load(d, from + i)), x + i); });
    });
  }
}

void unpatchify_rows(const UnpatchifyArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t channels = args.out.dim(1);
  const std::int64_t height = args.out.dim(2);
  const std::int64_t width = args.out.dim(3);
  for (std::int64_t row = begin; row < end; ++row) {
    const std::int64_t b = row / height;
    const std::int64_t y = row % height;
    const auto* tokens = static_cast<const float*>(Row::address(args.tokens, {b, y / 2 * (width / 2)}));
    for (std::int64_t c = 0; c < channels; ++c) {
      auto* out = static_cast<float*>(Row::address(args.out, {b, c, y}));
      for (std::int64_t x = 0; x < width; ++x) {
        out[x] = tokens[x / 2 * args.tokens.stride(1) + (2 * (y % 2) + x % 2) * channels + c];
      }
    }
  }
}

}  // namespace octavo::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace octavo::ops {

HWY_EXPORT(patchify_rows);
HWY_EXPORT(add_positions_rows);
HWY_EXPORT(unpatchify_rows);

void patchify_rows(const PatchifyArgs& args, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(patchify_rows)(args, begin, end);
}
void add_positions_rows(const AddPositionsArgs& args, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(add_positions_rows)(args, begin, end);
}
void unpatchify_rows(const UnpatchifyArgs& args, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(unpatchify_rows)(args, begin, end);
}

}  // namespace octavo::ops
#endif  // HWY_ONCE
