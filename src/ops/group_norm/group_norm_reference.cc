// GroupNorm as its formula says, in double.
#include <cmath>

#include "ops/activation/activation_kernels.h"
#include "ops/group_norm/group_norm_kernels.h"
#include "ops/rows.h"

namespace octavo::ops {
namespace {

/// visit(pixel's row) for every pixel of batch row b.
template <class Visit>
void for_each_pixel(const TensorView& view, std::int64_t b, const Visit& visit) {
  for (std::int64_t y = 0; y < view.dim(1); ++y) {
    for (std::int64_t x = 0; x < view.dim(2); ++x) visit(Row(view, {b, y, x}), y, x);
  }
}

}  // namespace

void group_norm_reference(ExecutionContext&, const GroupNormArgs& args, void*) {
  const std::int64_t group_channels = args.x.dim(3) / args.groups;
  const auto count = static_cast<double>(args.x.dim(1) * args.x.dim(2) * group_channels);
  const Activation activation = args.silu ? Activation::kSilu : Activation::kNone;
  for (std::int64_t b = 0; b < args.x.dim(0); ++b) {
    for (std::int64_t group = 0; group < args.groups; ++group) {
      const std::int64_t first = group * group_channels;
      const std::int64_t last = first + group_channels;
      double mean = 0;
      for_each_pixel(args.x, b, [&](const Row& pixel, std::int64_t, std::int64_t) {
        for (std::int64_t c = first; c < last; ++c) mean += pixel[c] / count;
      });
      double variance = 0;
      for_each_pixel(args.x, b, [&](const Row& pixel, std::int64_t, std::int64_t) {
        for (std::int64_t c = first; c < last; ++c) variance += (pixel[c] - mean) * (pixel[c] - mean) / count;
      });
      const double factor = 1.0 / std::sqrt(variance + args.eps);
      for_each_pixel(args.x, b, [&](const Row& pixel, std::int64_t y, std::int64_t x) {
        const Row out(args.out, {b, y, x});
        for (std::int64_t c = first; c < last; ++c) {
          const double normal = (pixel[c] - mean) * factor * args.weight.f32()[c] + args.bias.f32()[c];
          out.set(c, static_cast<float>(activate_reference(activation, normal)));
        }
      });
    }
  }
}

}  // namespace octavo::ops
