// The sampler of consistency models (Luo et al., arXiv:2310.04378, algorithm 3), for distilled flows such as Large
// Turbo: jump to the picture, then noise it anew to the next level. As diffusers' FlowMatchLCMScheduler and ComfyUI's
// "lcm" on flows.
#include "sampling/samplers.h"

namespace octavo::sampling {

void lcm_step(SamplerVerbs& verbs, const SamplerStep& step) {
  const TensorView &denoised = step.workspace[0], &noise = step.workspace[1];
  verbs.denoise(step.latents, step.sigma(), Prediction::kDenoised, denoised);
  if (step.next_sigma() == 0.0f) return verbs.lincomb({{1.0f, denoised}}, step.latents);
  verbs.noise(noise);
  verbs.lincomb({{step.next_sigma(), noise}, {1.0f - step.next_sigma(), denoised}}, step.latents);
}

}  // namespace octavo::sampling
