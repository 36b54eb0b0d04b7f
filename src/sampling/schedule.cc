#include "sampling/schedule.h"

#include <array>

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

constexpr std::array<std::string_view, 3> kNormalAliases = {"automatic", "diffusers", "default"};
constexpr std::array<std::string_view, 2> kSgmUniformAliases = {"sgmuniform", "sgm"};

constexpr std::array<ScheduleRow, 3> kRows = {{
    {"normal", "Normal", kNormalAliases, normal_sigmas},
    {"sgm_uniform", "SGM Uniform", kSgmUniformAliases, sgm_uniform_sigmas},
    {"simple", "Simple", {}, simple_sigmas},
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
