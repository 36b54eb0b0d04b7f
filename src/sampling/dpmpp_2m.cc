// DPM-Solver++(2M) (Lu et al., arXiv:2211.01095, algorithm 2) with lambda = -log sigma and alpha = 1, as k-diffusion
// writes it and as Stability's reference and ComfyUI run it on flows too: on a flow x = sigma * noise + (1 - sigma) *
// picture the exponential integrator in -log sigma is exact for a constant picture, so only the extrapolation of the
// picture between steps differs from the half-log-SNR form. Sigma 1 is an ordinary point of it.
//
// History: the picture seen one step ago.
#include <cmath>

#include "sampling/samplers.h"

namespace octavo::sampling {

void dpmpp_2m_step(SamplerVerbs& verbs, const SamplerStep& step) {
  const TensorView &denoised = step.workspace[0], &before = step.history[0];
  verbs.denoise(step.latents, step.sigma(), Prediction::kDenoised, denoised);
  if (step.next_sigma() == 0.0f) return verbs.lincomb({{1.0f, denoised}}, step.latents);
  const double sigma = step.sigma(), next = step.next_sigma();
  const double kept = next / sigma;
  double extrapolation = 0.0;  // 1 / (2 r), r = last step's length over this one's
  if (step.index > 0) {
    const double last_sigma = step.sigmas[static_cast<std::size_t>(step.index) - 1];
    extrapolation = 0.5 * std::log(sigma / next) / std::log(last_sigma / sigma);
  }
  verbs.lincomb({{static_cast<float>(kept), step.latents},
                 {static_cast<float>((1.0 - kept) * (1.0 + extrapolation)), denoised},
                 {static_cast<float>(-(1.0 - kept) * extrapolation), before}},
                step.latents);
  verbs.lincomb({{1.0f, denoised}}, before);
}

}  // namespace octavo::sampling
