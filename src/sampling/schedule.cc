#include "sampling/schedule.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "sampling/beta_quantile.h"
#include "sampling/row_lookup.h"

namespace octavo::sampling {
namespace {

/// ComfyUI begins runs that need a finite signal-to-noise ratio this far into the flow, before the shift.
constexpr double kFirstPercent = 1e-4;

template <typename T>
T shifted(T sigma, T shift) {
  return shift * sigma / (T{1} + (shift - T{1}) * sigma);
}

/// Level `k` of the training table, 1 .. train_steps, in float as diffusers and ComfyUI store it.
float training_sigma(int k, const FlowParameters& flow) {
  return shifted(static_cast<float>(k) / static_cast<float>(flow.train_steps), static_cast<float>(flow.shift));
}

/// `count` of `points` values evenly from the first timestep to the last, in double, last one exact: numpy.linspace.
/// Both ends come from the shifted training table and are shifted once more: so does diffusers, and pictures depend
/// on it (the last sigma is 0.0089, not 0.0030).
std::vector<float> linear_sigmas(int count, int points, const FlowParameters& flow) {
  const double train_steps = flow.train_steps;
  const double first = static_cast<double>(training_sigma(flow.train_steps, flow)) * train_steps;
  const double last = static_cast<double>(training_sigma(1, flow)) * train_steps;
  const double step = points > 1 ? (last - first) / (points - 1) : 0.0;
  std::vector<float> sigmas(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) {
    const double timestep = i > 0 && i == points - 1 ? last : i * step + first;
    sigmas[static_cast<std::size_t>(i)] = static_cast<float>(shifted(timestep / train_steps, flow.shift));
  }
  return sigmas;
}

/// sigma_at(0), ..., sigma_at(1) in even steps; one step is sigma_at(0).
template <typename SigmaAt>
std::vector<float> ramped_sigmas(int steps, SigmaAt sigma_at) {
  std::vector<float> sigmas(static_cast<std::size_t>(steps));
  for (int i = 0; i < steps; ++i) {
    const double ramp = steps > 1 ? static_cast<double>(i) / (steps - 1) : 0.0;
    sigmas[static_cast<std::size_t>(i)] = static_cast<float>(sigma_at(ramp));
  }
  return sigmas;
}

/// diffusers' FlowMatchEulerDiscreteScheduler, bit for bit; ComfyUI's "normal".
std::vector<float> normal_sigmas(int steps, const FlowParameters& flow) { return linear_sigmas(steps, steps, flow); }

/// ComfyUI: one point more, the last left out, so that the final step is as long as the others.
std::vector<float> sgm_uniform_sigmas(int steps, const FlowParameters& flow) {
  return linear_sigmas(steps, steps + 1, flow);
}

/// ComfyUI: evenly through the training table, shifted once.
std::vector<float> simple_sigmas(int steps, const FlowParameters& flow) {
  const double stride = static_cast<double>(flow.train_steps) / steps;
  std::vector<float> sigmas(static_cast<std::size_t>(steps));
  for (int i = 0; i < steps; ++i) {
    sigmas[static_cast<std::size_t>(i)] = training_sigma(flow.train_steps - static_cast<int>(i * stride), flow);
  }
  return sigmas;
}

/// Karras et al. (arXiv:2206.00364, eq. 5) with rho = 7 between the training table's ends. The table is a flow's: its
/// largest level is 1 and its smallest is shifted once (0.00299 at shift 3), as ComfyUI and A1111 take them.
std::vector<float> karras_sigmas(int steps, const FlowParameters& flow) {
  constexpr double kRho = 7.0;
  const double first = std::pow(training_sigma(flow.train_steps, flow), 1.0 / kRho);
  const double last = std::pow(training_sigma(1, flow), 1.0 / kRho);
  return ramped_sigmas(steps, [&](double ramp) { return std::pow(first + ramp * (last - first), kRho); });
}

/// Evenly in log sigma between the same ends.
std::vector<float> exponential_sigmas(int steps, const FlowParameters& flow) {
  const double first = std::log(training_sigma(flow.train_steps, flow));
  const double last = std::log(training_sigma(1, flow));
  return ramped_sigmas(steps, [&](double ramp) { return std::exp(first + ramp * (last - first)); });
}

/// Evenly in atan sigma between the same ends (Sabour, Fidler, Kreis: "Align your steps", arXiv:2404.14507).
std::vector<float> kl_optimal_sigmas(int steps, const FlowParameters& flow) {
  const double first = std::atan(training_sigma(flow.train_steps, flow));
  const double last = std::atan(training_sigma(1, flow));
  return ramped_sigmas(steps, [&](double ramp) { return std::tan(first + ramp * (last - first)); });
}

/// Quantiles of the beta distribution with both parameters 0.6 (Lee et al., arXiv:2407.12173), rounded to levels of the
/// training table as ComfyUI does; quantiles that meet on one level count once, so a long run may have fewer steps.
std::vector<float> beta_sigmas(int steps, const FlowParameters& flow) {
  constexpr double kParameter = 0.6;
  std::vector<float> sigmas;
  int last = -1;
  for (int i = 0; i < steps; ++i) {
    const double quantile = beta_quantile(1.0 - static_cast<double>(i) / steps, kParameter, kParameter);
    const auto level = static_cast<int>(std::nearbyint(quantile * (flow.train_steps - 1)));
    if (level != last) sigmas.push_back(training_sigma(level + 1, flow));
    last = level;
  }
  return sigmas;
}

/// ComfyUI and A1111: every (train_steps / steps)-th level of the training table from the second upwards. Whole
/// numbers: the run may have a step more than asked for, and begins a little below 1.
std::vector<float> ddim_uniform_sigmas(int steps, const FlowParameters& flow) {
  const int stride = std::max(flow.train_steps / steps, 1);
  std::vector<float> sigmas;
  for (int level = 2; level <= flow.train_steps; level += stride) sigmas.push_back(training_sigma(level, flow));
  std::reverse(sigmas.begin(), sigmas.end());
  return sigmas;
}

using Names = std::string_view;

constexpr Names kNormal[] = {"diffusers", "default"};
constexpr Names kSgmUniform[] = {"sgmuniform", "sgm"};
// A1111's polyexponential has rho = 1, which is this one.
constexpr Names kExponential[] = {"polyexponential"};
constexpr Names kKlOptimal[] = {"kl optimal"};
constexpr Names kDdimUniform[] = {"ddim"};

constexpr std::array<ScheduleRow, 8> kRows = {{
    {"normal", "Normal", kNormal, normal_sigmas},
    {"sgm_uniform", "SGM Uniform", kSgmUniform, sgm_uniform_sigmas},
    {"simple", "Simple", {}, simple_sigmas},
    {"beta", "Beta", {}, beta_sigmas},
    {"karras", "Karras", {}, karras_sigmas},
    {"exponential", "Exponential", kExponential, exponential_sigmas},
    {"kl_optimal", "KL Optimal", kKlOptimal, kl_optimal_sigmas},
    {"ddim_uniform", "DDIM", kDdimUniform, ddim_uniform_sigmas},
}};

}  // namespace

std::span<const ScheduleRow> schedule_rows() { return kRows; }

Result<const ScheduleRow*> find_schedule(std::string_view name) { return find_row(schedule_rows(), name, "schedule"); }

Schedule make_schedule(const ScheduleRow& row, int steps, const FlowParameters& flow) {
  OCTAVO_CHECK(steps >= 1, "a schedule of {} steps", steps);
  OCTAVO_CHECK(flow.shift > 0.0 && flow.train_steps >= 1, "shift {} with {} training steps", flow.shift,
               flow.train_steps);
  Schedule schedule;
  schedule.sigmas = row.sigmas(steps, flow);
  for (const float sigma : schedule.sigmas) {
    schedule.timesteps.push_back(sigma * static_cast<float>(flow.train_steps));
  }
  schedule.sigmas.push_back(0.0f);
  schedule.below_one = static_cast<float>(shifted(1.0 - kFirstPercent, flow.shift));
  return schedule;
}

Schedule cut_to_strength(const Schedule& schedule, double strength) {
  OCTAVO_CHECK(strength > 0.0 && strength <= 1.0, "strength {}", strength);
  const auto left_out = static_cast<std::ptrdiff_t>(schedule.steps() - schedule.steps() * strength);
  Schedule end = schedule;
  end.sigmas.erase(end.sigmas.begin(), end.sigmas.begin() + left_out);
  end.timesteps.erase(end.timesteps.begin(), end.timesteps.begin() + left_out);
  return end;
}

}  // namespace octavo::sampling
