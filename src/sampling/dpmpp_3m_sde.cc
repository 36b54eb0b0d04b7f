// DPM-Solver++(3M) for the stochastic equation, as k-diffusion's sample_dpmpp_3m_sde defines it, in the flow's half
// log-SNR as ComfyUI runs it. First and second step have order one and two. About the noise see dpmpp_2m_sde.cc.
//
// History: the pictures seen one and two steps ago.
#include <cmath>

#include "sampling/flow_coefficients.h"
#include "sampling/samplers.h"

namespace octavo::sampling {

void dpmpp_3m_sde_step(SamplerVerbs& verbs, const SamplerStep& step) {
  const TensorView &denoised = step.workspace[0], &noise = step.workspace[1];
  const TensorView &before = step.history[0], &two_before = step.history[1];
  verbs.denoise(step.latents, step.sigma(), Prediction::kDenoised, denoised);
  if (step.next_sigma() == 0.0f) return verbs.lincomb({{1.0f, denoised}}, step.latents);
  const StochasticStep frame(step, step.options.eta);
  const double phi_2 = std::expm1(-frame.h_eta) / frame.h_eta + 1.0;
  double now = frame.denoised, one = 0.0, two = 0.0;  // coefficients of the three pictures
  if (step.index >= 2) {
    const double r0 = log_snr_step(step, step.index - 1) / frame.h;
    const double r1 = log_snr_step(step, step.index - 2) / frame.h;
    const double phi_3 = phi_2 / frame.h_eta - 0.5;
    // Divided differences d0 = (D - D1) / r0 and d1 = (D1 - D2) / r1 enter as alpha * (first * d0 + second * d1).
    const double curvature = (phi_2 * r0 - phi_3) / (r0 + r1);
    const double first = frame.alpha * (phi_2 + curvature), second = -frame.alpha * curvature;
    now += first / r0;
    one = second / r1 - first / r0;
    two = -second / r1;
  } else if (step.index == 1) {
    const double slope = frame.alpha * phi_2 * frame.h / log_snr_step(step, 0);
    now += slope;
    one = -slope;
  }
  verbs.lincomb({{static_cast<float>(frame.latents), step.latents},
                 {static_cast<float>(now), denoised},
                 {static_cast<float>(one), before},
                 {static_cast<float>(two), two_before}},
                step.latents);
  if (step.options.eta > 0.0f) {
    verbs.noise(noise);
    verbs.lincomb({{1.0f, step.latents}, {static_cast<float>(frame.noise), noise}}, step.latents);
  }
  verbs.lincomb({{1.0f, before}}, two_before);
  verbs.lincomb({{1.0f, denoised}}, before);
}

}  // namespace octavo::sampling
