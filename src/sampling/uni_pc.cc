// UniPC (Zhao et al., arXiv:2302.04867) of order two, predicting pictures, B(h) = e^h - 1 ("bh2"), as diffusers'
// UniPCMultistepScheduler runs it with use_flow_sigmas: the model's answer at a step's end first corrects that step,
// then predicts the next one. One call of the model a step. First and last step have order one.
//
// History: the latents that the last step began from (corrected), and the pictures seen there and one step earlier.
#include <cmath>

#include "sampling/flow_coefficients.h"
#include "sampling/samplers.h"

namespace octavo::sampling {
namespace {

/// A step from sigmas[index] to sigmas[index + 1] as a sum over latents and pictures.
struct Coefficients {
  double latents = 0;
  double now = 0;     // the picture at the step's beginning
  double before = 0;  // the one a step earlier
  double ahead = 0;   // the one at the step's end: the corrector's
};

/// The part that predictor and corrector share: exact for a constant picture.
Coefficients first_order(const SamplerStep& step, int index, double growth) {
  const auto at = static_cast<std::size_t>(index);
  const double sigma = step.sigmas[at], next = step.sigmas[at + 1];
  return {.latents = next / sigma, .now = -(1.0 - next) * growth, .before = 0, .ahead = 0};
}

Coefficients predictor(const SamplerStep& step, int index) {
  const double h = log_snr_step(step, index);
  const double growth = std::expm1(-h);
  Coefficients sum = first_order(step, index, growth);
  if (index > 0) {
    const double ratio = -log_snr_step(step, index - 1) / h;  // place of the picture before, in steps; below 0
    const double weight = 0.5 * -(1.0 - step.sigmas[static_cast<std::size_t>(index) + 1]) * growth / ratio;
    sum.before = weight;
    sum.now -= weight;
  }
  return sum;
}

Coefficients corrector(const SamplerStep& step, int index) {
  const double h = log_snr_step(step, index);
  const double growth = std::expm1(-h);
  const double scale = -(1.0 - step.sigmas[static_cast<std::size_t>(index) + 1]) * growth;
  Coefficients sum = first_order(step, index, growth);
  double weight_before = 0.0, weight_ahead = 0.5;
  if (index > 0) {
    // Two conditions on the weights of (before - now) / ratio and (ahead - now): sums b1 = phi / B and b2 = 2 phi' / B,
    // with hh = -h, phi = (e^hh - 1) / hh - 1 and phi' = phi / hh - 1 / 2.
    const double ratio = -log_snr_step(step, index - 1) / h;
    const double phi = growth / -h - 1.0;
    const double b1 = phi / growth, b2 = 2.0 * (phi / -h - 0.5) / growth;
    weight_before = (b1 - b2) / (1.0 - ratio);
    weight_ahead = b1 - weight_before;
    weight_before /= ratio;
  }
  sum.before = scale * weight_before;
  sum.ahead = scale * weight_ahead;
  sum.now -= sum.before + sum.ahead;
  return sum;
}

}  // namespace

void uni_pc_step(SamplerVerbs& verbs, const SamplerStep& step) {
  const TensorView& denoised = step.workspace[0];
  const TensorView &from = step.history[0], &now = step.history[1], &before = step.history[2];
  verbs.denoise(step.latents, step.sigma(), Prediction::kDenoised, denoised);
  if (step.next_sigma() == 0.0f) return verbs.lincomb({{1.0f, denoised}}, step.latents);
  if (step.index > 0) {
    const Coefficients sum = corrector(step, step.index - 1);
    verbs.lincomb({{static_cast<float>(sum.latents), from},
                   {static_cast<float>(sum.now), now},
                   {static_cast<float>(sum.before), before},
                   {static_cast<float>(sum.ahead), denoised}},
                  step.latents);
  }
  verbs.lincomb({{1.0f, step.latents}}, from);
  verbs.lincomb({{1.0f, now}}, before);
  verbs.lincomb({{1.0f, denoised}}, now);
  const Coefficients sum = predictor(step, step.index);
  verbs.lincomb({{static_cast<float>(sum.latents), step.latents},
                 {static_cast<float>(sum.now), now},
                 {static_cast<float>(sum.before), before}},
                step.latents);
}

}  // namespace octavo::sampling
