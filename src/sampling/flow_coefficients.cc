#include "sampling/flow_coefficients.h"

#include <cmath>

namespace octavo::sampling {

double half_log_snr(float sigma) {
  OCTAVO_CHECK(sigma > 0.0f && sigma < 1.0f, "sigma {} has no finite signal-to-noise ratio", sigma);
  return std::log1p(-static_cast<double>(sigma)) - std::log(static_cast<double>(sigma));
}

double log_snr_step(const SamplerStep& step, int index) {
  const auto at = static_cast<std::size_t>(index);
  return half_log_snr(step.sigmas[at + 1]) - half_log_snr(step.sigmas[at]);
}

StochasticStep::StochasticStep(const SamplerStep& step, double eta)
    : h(log_snr_step(step, step.index)),
      h_eta(h * (1.0 + eta)),
      alpha(1.0 - static_cast<double>(step.next_sigma())),
      latents(static_cast<double>(step.next_sigma()) / step.sigma() * std::exp(-h * eta)),
      denoised(-alpha * std::expm1(-h_eta)),
      noise(step.next_sigma() * std::sqrt(-std::expm1(-2.0 * h * eta)) * step.options.s_noise) {}

}  // namespace octavo::sampling
