// Samplers: how a step moves the latents. A sampler is one file with one function and one row in the table.
//
// A sampler sees latents through three verbs (denoise, lincomb, noise) and keeps nothing between steps except the
// history tensors it declares, so a run's state is a plain value (sampler_state.h) and a step border is where a run
// reports progress, is cancelled, parked or resumed.
#pragma once

#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"

namespace octavo::sampling {

/// What a sampler wants to know from the model.
enum class Prediction {
  kVelocity,  // dx/dsigma, the model's own output
  kDenoised,  // the picture it sees: x - sigma * velocity
};

/// The verbs. Tensors are [B, C, height, width] f32, contiguous, of the run.
class SamplerVerbs {
 public:
  struct Term {
    float coefficient;
    TensorView input;
  };
  virtual ~SamplerVerbs() = default;
  /// Guided prediction at (latents, sigma); `sigma` is one of the row's model_sigmas. `out` is not `latents`.
  virtual void denoise(const TensorView& latents, float sigma, Prediction prediction, const TensorView& out) = 0;
  /// out = sum of terms, left to right, every operation rounded on its own; `out` may be an input.
  virtual void lincomb(std::initializer_list<Term> terms, const TensorView& out) = 0;
  /// Fresh standard normal values, from each picture's own stream.
  virtual void noise(const TensorView& out) = 0;
};

/// What a request may ask of a sampler; a value, part of a run's state.
struct SamplerOptions {
  float eta = 1.0f;      // how much fresh noise a step adds where the row says uses_eta: 0 = none, 1 = all
  float s_noise = 1.0f;  // factor on that noise; below 1 smooths, above 1 roughens (k-diffusion's s_noise)
  bool operator==(const SamplerOptions& other) const = default;
};

/// One step: from sigmas[index] to sigmas[index + 1].
struct SamplerStep {
  int index = 0;
  SamplerOptions options;
  std::span<const float> sigmas;          // steps + 1 values
  TensorView latents;                     // read and written
  std::span<const TensorView> history;    // history_count tensors; zero before the first step, kept between steps
  std::span<const TensorView> workspace;  // workspace_count tensors; contents lost between steps
  float sigma() const { return sigmas[static_cast<std::size_t>(index)]; }
  float next_sigma() const { return sigmas[static_cast<std::size_t>(index) + 1]; }
};

struct SamplerRow {
  std::string_view name;                      // canonical: "euler"
  std::string_view label;                     // as lists show it: "Euler"
  std::span<const std::string_view> aliases;  // lower case
  std::string_view default_schedule;          // a schedule's name
  std::string_view summary;                   // a few words for --help
  int history_count = 0;
  int workspace_count = 0;
  /// Adds noise of its own, scaled by SamplerOptions.
  bool uses_eta = false;
  /// Computes with log((1 - sigma) / sigma), which sigma = 1 does not have: a run that begins there begins at
  /// Schedule::below_one instead.
  bool needs_finite_snr = false;
  void (*step)(SamplerVerbs& verbs, const SamplerStep& step) = nullptr;
  /// Every sigma at which a step calls the model, each once, in the order of the first calls, so that what depends on
  /// the timestep alone is computed before the loop. Null = sigmas[0 .. steps - 1].
  std::vector<float> (*model_sigmas)(std::span<const float> sigmas) = nullptr;
};

/// All rows; the first is the default.
std::span<const SamplerRow> sampler_rows();

/// By name, label or alias, any case; "" = the default. kInvalidArgument with subject "sampler" listing the names.
Result<const SamplerRow*> find_sampler(std::string_view name);

/// row.model_sigmas, or its default.
std::vector<float> model_sigmas(const SamplerRow& row, std::span<const float> sigmas);

}  // namespace octavo::sampling
