// Heun's method (Karras et al., arXiv:2206.00364, algorithm 1, without churn): Euler's step, then the step again with
// the mean of the velocities at both ends. The last step, to sigma 0, is Euler's. Two calls of the model a step; equals
// diffusers' FlowMatchHeunDiscreteScheduler up to rounding.
#include "sampling/samplers.h"

namespace octavo::sampling {

void heun_step(SamplerVerbs& verbs, const SamplerStep& step) {
  const TensorView& velocity = step.workspace[0];
  verbs.denoise(step.latents, step.sigma(), Prediction::kVelocity, velocity);
  const float dt = step.next_sigma() - step.sigma();
  if (step.next_sigma() == 0.0f) return verbs.lincomb({{1.0f, step.latents}, {dt, velocity}}, step.latents);
  const TensorView &ahead = step.workspace[1], &velocity_ahead = step.workspace[2];
  verbs.lincomb({{1.0f, step.latents}, {dt, velocity}}, ahead);
  verbs.denoise(ahead, step.next_sigma(), Prediction::kVelocity, velocity_ahead);
  verbs.lincomb({{1.0f, step.latents}, {0.5f * dt, velocity}, {0.5f * dt, velocity_ahead}}, step.latents);
}

}  // namespace octavo::sampling
