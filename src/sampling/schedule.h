// Schedules: which noise levels a run visits. One row each; names, labels and aliases are what users of AUTOMATIC1111,
// ComfyUI and diffusers type. docs/numerics.md says which is whose.
//
// Flow matching: x_sigma = sigma * noise + (1 - sigma) * image, sigma from 1 to 0. Every schedule bends its points
// with shift(s) = shift * s / (1 + (shift - 1) * s) (Esser et al., arXiv:2403.03206, section 5.3.2).
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace octavo::sampling {

/// From scheduler_config.json; defaults are Stable Diffusion 3.5's.
struct FlowParameters {
  double shift = 3.0;
  int train_steps = 1000;
};

/// A run's noise levels.
struct Schedule {
  std::vector<float> sigmas;     // steps + 1 values, decreasing, the last is 0
  std::vector<float> timesteps;  // steps values: sigma * train_steps, what the model is told
  float below_one = 1.0f;        // where samplers that need a finite signal-to-noise ratio begin instead of at 1
  int steps() const { return static_cast<int>(timesteps.size()); }
};

struct ScheduleRow {
  std::string_view name;                                                // canonical: "normal"
  std::string_view label;                                               // as lists show it: "Normal"
  std::span<const std::string_view> aliases;                            // lower case
  std::vector<float> (*sigmas)(int steps, const FlowParameters& flow);  // without the final 0
};

/// All rows; the first is the default.
std::span<const ScheduleRow> schedule_rows();

/// By name, label or alias, any case; "" = the default. kInvalidArgument with subject "schedule" listing the names.
Result<const ScheduleRow*> find_schedule(std::string_view name);

/// Requires steps >= 1. beta and ddim_uniform count in levels of the training table: their steps() may be less or more
/// than `steps`, as in ComfyUI and A1111; every other row has exactly `steps`.
Schedule make_schedule(const ScheduleRow& row, int steps, const FlowParameters& flow = {});

/// The end of `schedule` that changes an image by `strength` in (0, 1], as diffusers' img2img cuts it: the first
/// int(steps - steps * strength) steps are left out, so at least one remains. A run over it begins at
/// sigmas[0] <= 1 from sigmas[0] * noise + (1 - sigmas[0]) * image (initial_state).
Schedule cut_to_strength(const Schedule& schedule, double strength);

}  // namespace octavo::sampling
