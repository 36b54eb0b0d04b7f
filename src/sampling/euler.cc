// Euler's method on the flow's ordinary differential equation, as diffusers' FlowMatchEulerDiscreteScheduler.step
// does it with f32 latents: bit-equal, because dt is rounded to f32, then dt * v, then the sum.
#include "sampling/samplers.h"

namespace octavo::sampling {

void euler_step(SamplerVerbs& verbs, const SamplerStep& step) {
  const TensorView& velocity = step.workspace[0];
  verbs.denoise(step.latents, step.sigma(), Prediction::kVelocity, velocity);
  const float dt = step.next_sigma() - step.sigma();
  verbs.lincomb({{1.0f, step.latents}, {dt, velocity}}, step.latents);
}

}  // namespace octavo::sampling
