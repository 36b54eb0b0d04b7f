// Calibration: pictures of a set of prompts drawn by the normal pipeline, an Observer listening. Nothing is decoded.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "generation/generation.h"
#include "pipeline/pipeline.h"
#include "quantize/prompt_file.h"
#include "quantize/sites.h"
#include "quantize/statistics.h"

namespace octavo::quantize {

/// Some 60 prompts of this project: subjects, places, light, styles, counts, lettering, long and short, and none at
/// all; worded so that a small model that knows objects by name has something to draw too.
std::vector<PromptEntry> built_in_prompts();

struct CalibrationOptions {
  std::vector<PromptEntry> prompts;  // at least one
  int steps = 0;                     // 0 = the model's default: the ranges of the steps that will be run
  std::int64_t seed = 0;             // prompt i is drawn from seed + i
  double guidance_scale = -1;        // < 0 = the model's default
  int width = 0, height = 0;         // 0 = the model's default
  /// Which model it is, so that statistics of another are told apart: its weights::digest_source.
  std::string model_hash;
  /// Where statistics are kept, written after each prompt; an unfinished file goes on. Empty: in memory alone.
  std::filesystem::path file;
};

struct CalibrationProgress {
  std::int64_t prompt = 0, prompts = 0;  // finished, in all
  std::int64_t step = 0, steps = 0;      // of the current prompt
  std::int64_t resumed_prompts = 0;      // finished by an earlier run
  double fraction() const {
    return (static_cast<double>(prompt) + static_cast<double>(step) / static_cast<double>(steps)) /
           static_cast<double>(prompts);
  }
};

struct CalibrationControl {
  std::function<void(const CalibrationProgress&)> on_progress;
  generation::CancelToken cancel;
};

/// Deterministic: the same model, options and arithmetic give the same bits on any number of threads, interrupted or
/// not. `sites` are the model's (sites_of). kCancelled, after which the file holds the finished prompts;
/// kFailedPrecondition when the file holds another calibration, naming what differs; kDataCorruption naming the layer
/// whose input was not finite.
Result<Statistics> calibrate(pipeline::Pipeline& pipeline, const std::vector<Site>& sites,
                             const CalibrationOptions& options, const CalibrationControl& control);

}  // namespace octavo::quantize
