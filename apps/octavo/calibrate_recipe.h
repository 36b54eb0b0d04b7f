// What `octavo quantize` does between its plan and its writing when ranges of activations are wanted: it runs the
// model on prompts, listens, and tunes the recipe by what was heard.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <string>

#include "base/status.h"
#include "compute_flags.h"
#include "quantize/recipe.h"
#include "weights/export/tensor_source.h"
#include "weights/model_checkpoint.h"

namespace octavo::app {

struct CalibrationFlags {
  std::string prompts;  // file; empty = the built-in set
  int steps = 0;        // 0 = the model's default
  std::int64_t seed = 0;
  std::string calibration;  // file of statistics to keep; empty = beside the output, gone when that is written
  double smooth = 0;        // SmoothQuant's alpha; 0 = none
  int outliers = 0;         // channels a layer
  ComputeFlags compute;
};
void add_calibration_flags(CLI::App& command, CalibrationFlags& flags);

/// kInvalidArgument naming the flag whose value is not possible.
Status check_calibration_flags(const CalibrationFlags& flags);

/// Whether the recipe or the flags need the model to be run.
bool needs_calibration(const quantize::Recipe& recipe, const CalibrationFlags& flags);

/// Where statistics are kept when no flag says so.
std::filesystem::path statistics_beside(const std::filesystem::path& out);

/// Runs the model (with progress and the time left; Ctrl-C leaves what is finished in `statistics`, and the same
/// command goes on) and fills the recipe's scales, smoothing, outliers and reasons.
Status calibrate_recipe(quantize::Recipe& recipe, const weights::TensorSource& source, const weights::ModelFiles& files,
                        const CalibrationFlags& flags, const std::filesystem::path& statistics);

}  // namespace octavo::app
