#include "ops/patch/patch_kernels.h"
#include "ops/rows.h"

namespace octavo::ops {

void patchify_reference(ExecutionContext&, const PatchifyArgs& args, void*) {
  const std::int64_t columns = args.latents.dim(3) / 2;
  for (std::int64_t b = 0; b < args.out.dim(0); ++b) {
    for (std::int64_t token = 0; token < args.out.dim(1); ++token) {
      const Row out(args.out, {b, token});
      const std::int64_t y = 2 * (token / columns);
      const std::int64_t x = 2 * (token % columns);
      for (std::int64_t c = 0; c < args.latents.dim(1); ++c) {
        for (std::int64_t dy = 0; dy < 2; ++dy) {
          const Row latents(args.latents, {b % args.latents.dim(0), c, y + dy});
          for (std::int64_t dx = 0; dx < 2; ++dx) out.set(4 * c + 2 * dy + dx, latents[x + dx]);
        }
      }
    }
  }
}

void add_positions_reference(ExecutionContext&, const AddPositionsArgs& args, void*) {
  const std::int64_t top = (args.table.dim(0) - args.rows) / 2;
  const std::int64_t left = (args.table.dim(1) - args.columns) / 2;
  for (std::int64_t b = 0; b < args.x.dim(0); ++b) {
    for (std::int64_t token = 0; token < args.x.dim(1); ++token) {
      const Row x(args.x, {b, token});
      const Row position(args.table, {top + token / args.columns, left + token % args.columns});
      for (std::int64_t i = 0; i < args.x.dim(2); ++i) x.set(i, x[i] + position[i]);
    }
  }
}

void unpatchify_reference(ExecutionContext&, const UnpatchifyArgs& args, void*) {
  const std::int64_t channels = args.out.dim(1);
  const std::int64_t columns = args.out.dim(3) / 2;
  for (std::int64_t b = 0; b < args.out.dim(0); ++b) {
    for (std::int64_t c = 0; c < channels; ++c) {
      for (std::int64_t y = 0; y < args.out.dim(2); ++y) {
        const Row out(args.out, {b, c, y});
        for (std::int64_t x = 0; x < args.out.dim(3); ++x) {
          const Row token(args.tokens, {b, (y / 2) * columns + x / 2});
          out.set(x, token[(2 * (y % 2) + x % 2) * channels + c]);
        }
      }
    }
  }
}

}  // namespace octavo::ops
