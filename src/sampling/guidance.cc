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

}  // namespace octavo::sampling
