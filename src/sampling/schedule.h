// Schedules: which noise levels a run visits. One row each; names, labels and aliases are what users of AUTOMATIC1111,
// ComfyUI and diffusers type.
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
  int steps() const { return static_cast<int>(timesteps.size()); }
};

struct ScheduleRow {
  std::string_view name;                                                // canonical: "normal"
  std::string_view label;                                               // as lists show it: "Normal"
  std::span<const std::string_view> aliases;                            // lower case
  std::vector<float> (*sigmas)(int steps, const FlowParameters& flow);  // `steps` values, without the final 0
};

/// All rows; the first is the default.
std::span<const ScheduleRow> schedule_rows();

/// By name, label or alias, any case; "" = the default. kInvalidArgument with subject "schedule" listing the names.
Result<const ScheduleRow*> find_schedule(std::string_view name);

/// Requires steps >= 1.
Schedule make_schedule(const ScheduleRow& row, int steps, const FlowParameters& flow = {});

}  // namespace octavo::sampling
