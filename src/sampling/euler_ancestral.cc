// Euler's method with fresh noise at every step, for flows ("RF", the form of ComfyUI's sample_euler_ancestral_RF).
//
// A step goes down past the next level, to sigma_down = sigma' * (1 + (sigma' / sigma - 1) * eta), and comes back up
// to it with new noise. On a flow both the picture's share 1 - sigma and the noise's share sigma must come out right:
// x is scaled by (1 - sigma') / (1 - sigma_down), which leaves the variance
// sigma_down^2 (1 - sigma')^2 / (1 - sigma_down)^2; what is missing to sigma'^2 is added. eta = 0 is Euler's method.
#include <cmath>

#include "sampling/samplers.h"

namespace octavo::sampling {

void euler_ancestral_step(SamplerVerbs& verbs, const SamplerStep& step) {
  const TensorView& denoised = step.workspace[0];
  verbs.denoise(step.latents, step.sigma(), Prediction::kDenoised, denoised);
  if (step.next_sigma() == 0.0f) return verbs.lincomb({{1.0f, denoised}}, step.latents);
  const double sigma = step.sigma(), next = step.next_sigma(), eta = step.options.eta;
  const double down = next * (1.0 + (next / sigma - 1.0) * eta);
  const double kept = down / sigma;
  if (eta == 0.0) {
    return verbs.lincomb({{static_cast<float>(kept), step.latents}, {static_cast<float>(1.0 - kept), denoised}},
                         step.latents);
  }
  const double scale = (1.0 - next) / (1.0 - down);
  const double renoise = std::sqrt(next * next - down * down * scale * scale) * step.options.s_noise;
  verbs.lincomb(
      {{static_cast<float>(scale * kept), step.latents}, {static_cast<float>(scale * (1.0 - kept)), denoised}},
      step.latents);
  verbs.noise(denoised);
  verbs.lincomb({{1.0f, step.latents}, {static_cast<float>(renoise), denoised}}, step.latents);
}

}  // namespace octavo::sampling
