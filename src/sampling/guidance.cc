#include "sampling/guidance.h"

#include "ops/cast/cast.h"
#include "ops/sample/sample.h"

namespace octavo::sampling {

void apply_guidance(device::ExecutionContext& context, const Guidance& guidance, const TensorView& prediction,
                    const TensorView& out) {
  const std::int64_t images = out.dim(0);
  OCTAVO_CHECK(prediction.dim(0) == guidance.branches() * images, "guidance: {} rows predicted for {} pictures",
               prediction.dim(0), images);
  if (!guidance.enabled()) {
    ops::cast(context, {.x = prediction, .out = out});
    return;
  }
  ops::GuidanceArgs args;
  args.uncond = prediction.slice(0, 0, images);
  args.cond = prediction.slice(0, images, images);
  args.guidance_scale = guidance.scale;
  args.out = out;
  ops::guidance(context, args);
}

void apply_skip_layer_guidance(device::ExecutionContext& context, const SkipLayerGuidance& guidance,
                               const TensorView& cond, const TensorView& skipped, const TensorView& out) {
  ops::LincombArgs difference;
  difference.terms[0] = {1.0f, cond};
  difference.terms[1] = {-1.0f, skipped};
  difference.term_count = 2;
  difference.out = skipped;
  ops::lincomb(context, difference);
  ops::LincombArgs sum;
  sum.terms[0] = {1.0f, out};
  sum.terms[1] = {static_cast<float>(guidance.scale), skipped};
  sum.term_count = 2;
  sum.out = out;
  ops::lincomb(context, sum);
}

}  // namespace octavo::sampling
