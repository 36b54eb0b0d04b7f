// The convolution as its definition says, one output at a time, summed in double.
#include "ops/conv2d/conv2d_kernels.h"
#include "ops/rows.h"

namespace octavo::ops {
namespace {

/// One tap of the kernel over all input channels: sum over c of x[b, y, x, c] * weight[out_channel, c, ky, kx].
double tap(const Conv2dArgs& args, const Row& pixel, std::int64_t out_channel, std::int64_t ky, std::int64_t kx) {
  const bool rounds_weight = args.x.dtype() == DType::kBF16;
  double sum = 0;
  for (std::int64_t c = 0; c < args.x.dim(3); ++c) {
    float weight = Row(args.weight.plain, {out_channel, c, ky})[kx];
    if (rounds_weight) weight = to_float(to_bfloat16(weight));
    sum += static_cast<double>(pixel[c]) * weight;
  }
  return sum;
}

}  // namespace

void conv2d_reference(ExecutionContext&, const Conv2dArgs& args, void*) {
  const std::int64_t zoom = args.upsample ? 2 : 1;
  const ConvRows rows = conv_rows(args);  // of the input as the kernel sees it
  const std::int64_t width = args.x.dim(2) * zoom;
  const std::int64_t kernel = args.weight.plain.dim(2);
  for (std::int64_t b = 0; b < args.out.dim(0); ++b) {
    for (std::int64_t y = 0; y < args.out.dim(1); ++y) {
      for (std::int64_t x = 0; x < args.out.dim(2); ++x) {
        const Row out(args.out, {b, y, x});
        for (std::int64_t n = 0; n < args.out.dim(3); ++n) {
          double sum = args.bias.defined() ? Row(args.bias, {})[n] : 0.0;
          for (std::int64_t ky = 0; ky < kernel; ++ky) {
            for (std::int64_t kx = 0; kx < kernel; ++kx) {
              const std::int64_t in_y = y * args.stride + ky - rows.pad_before;
              const std::int64_t in_x = x * args.stride + kx - args.pad_before;
              if (in_y < 0 || in_y >= rows.rows || in_x < 0 || in_x >= width) continue;
              sum += tap(args, Row(args.x, {b, (in_y + rows.skipped) / zoom, in_x / zoom}), n, ky, kx);
            }
          }
          if (args.residual.defined()) sum += Row(args.residual, {b, y, x})[n];
          out.set(n, static_cast<float>(sum));
        }
      }
    }
  }
}

}  // namespace octavo::ops
