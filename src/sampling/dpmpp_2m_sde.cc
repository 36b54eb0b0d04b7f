// DPM-Solver++(2M) for the stochastic equation, in k-diffusion's two variants of the second-order term: midpoint, and
// Heun (phi_2). In the flow's half log-SNR, as ComfyUI runs it on flows. eta = 0 is deterministic.
//
// k-diffusion takes its noise from a Brownian tree, so that runs with other step counts see the same path. Its
// increments over the steps of one run are independent and are divided by their standard deviation: independent
// normal values, which is what we draw. Single pictures differ from k-diffusion's, their distribution does not.
//
// History: the picture seen one step ago.
#include <cmath>

#include "sampling/flow_coefficients.h"
#include "sampling/samplers.h"

namespace octavo::sampling {
namespace {

/// `second_order(frame)` is the factor on (D - D_before) * h / h_before.
template <typename SecondOrder>
void stochastic_2m_step(SamplerVerbs& verbs, const SamplerStep& step, SecondOrder second_order) {
  const TensorView &denoised = step.workspace[0], &before = step.history[0], &noise = step.workspace[1];
  verbs.denoise(step.latents, step.sigma(), Prediction::kDenoised, denoised);
  if (step.next_sigma() == 0.0f) return verbs.lincomb({{1.0f, denoised}}, step.latents);
  const StochasticStep frame(step, step.options.eta);
  const double slope = step.index > 0 ? second_order(frame) * frame.h / log_snr_step(step, step.index - 1) : 0.0;
  verbs.lincomb({{static_cast<float>(frame.latents), step.latents},
                 {static_cast<float>(frame.denoised + slope), denoised},
                 {static_cast<float>(-slope), before}},
                step.latents);
  if (step.options.eta > 0.0f) {
    verbs.noise(noise);
    verbs.lincomb({{1.0f, step.latents}, {static_cast<float>(frame.noise), noise}}, step.latents);
  }
  verbs.lincomb({{1.0f, denoised}}, before);
}

}  // namespace

void dpmpp_2m_sde_step(SamplerVerbs& verbs, const SamplerStep& step) {
  stochastic_2m_step(verbs, step, [](const StochasticStep& frame) { return 0.5 * frame.denoised; });
}

void dpmpp_2m_sde_heun_step(SamplerVerbs& verbs, const SamplerStep& step) {
  stochastic_2m_step(verbs, step, [](const StochasticStep& frame) {
    return frame.alpha * (std::expm1(-frame.h_eta) / frame.h_eta + 1.0);
  });
}

}  // namespace octavo::sampling
