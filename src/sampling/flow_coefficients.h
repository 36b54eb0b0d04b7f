// Numbers that several samplers need of a step, in double: they are few, and differences of logarithms cancel.
#pragma once

#include "sampling/sampler.h"

namespace octavo::sampling {

/// Half the logarithm of the signal-to-noise ratio of a flow at `sigma` in (0, 1): log((1 - sigma) / sigma).
double half_log_snr(float sigma);

/// half_log_snr(sigmas[index + 1]) - half_log_snr(sigmas[index]); both sigmas in (0, 1).
double log_snr_step(const SamplerStep& step, int index);

/// The exponential integrator's frame that DPM-Solver++'s stochastic variants share (Lu et al., arXiv:2211.01095,
/// in the flow's alpha = 1 - sigma):
///   x' = latents * x + denoised * D + correction + noise * z,  z ~ N(0, 1).
struct StochasticStep {
  StochasticStep(const SamplerStep& step, double eta);
  double h;         // length in half log-SNR
  double h_eta;     // h * (1 + eta)
  double alpha;     // 1 - sigma of the step's end
  double latents;   // sigma' / sigma * exp(-h * eta)
  double denoised;  // alpha * (1 - exp(-h_eta))
  double noise;     // sigma' * sqrt(1 - exp(-2 h eta)), times s_noise
};

}  // namespace octavo::sampling
