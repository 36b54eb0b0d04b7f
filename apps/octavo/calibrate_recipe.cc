#include "calibrate_recipe.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "base/clock.h"
#include "base/log.h"
#include "interrupt.h"
#include "pipeline/pipeline.h"
#include "quantize/calibrate.h"
#include "quantize/tune.h"
#include "write_quantized.h"

namespace octavo::app {
namespace {

using Clock = std::chrono::steady_clock;

/// One line on a terminal, redrawn in place; silent elsewhere.
class PromptProgress {
 public:
  PromptProgress() : terminal_(isatty(STDERR_FILENO) != 0), started_(Clock::now()) {}
  ~PromptProgress() {
    if (drawn_) std::fputc('\n', stderr);
  }
  PromptProgress(const PromptProgress&) = delete;
  PromptProgress& operator=(const PromptProgress&) = delete;

  void show(const quantize::CalibrationProgress& progress) {
    if (!terminal_) return;
    const double before = static_cast<double>(progress.resumed_prompts) / static_cast<double>(progress.prompts);
    const double done = progress.fraction() - before;
    std::string left;
    if (done > 0) {
      left = fmt::format(", {:.0f} s left", seconds(Clock::now() - started_) / done * (1 - progress.fraction()));
    }
    const std::string line = fmt::format("\rcalibrating: prompt {} of {}, step {} of {}{}\x1b[K", progress.prompt + 1,
                                         progress.prompts, progress.step, progress.steps, left);
    std::fputs(line.c_str(), stderr);
    std::fflush(stderr);
    drawn_ = true;
  }

 private:
  const bool terminal_;
  bool drawn_ = false;
  const Clock::time_point started_;
};

/// Ctrl-C is ours no longer than somebody looks: what follows the calibration is stopped by it as any process is.
Result<quantize::Statistics> calibrate(pipeline::Pipeline& pipeline, const std::vector<quantize::Site>& sites,
                                       const quantize::CalibrationOptions& options) {
  const Interrupt interrupt;
  PromptProgress progress;
  quantize::CalibrationControl control;
  control.on_progress = [&](const quantize::CalibrationProgress& at) {
    progress.show(at);
    if (interrupt.requested()) control.cancel.cancel();
  };
  OCTAVO_ASSIGN_OR_RETURN(quantize::Statistics heard, quantize::calibrate(pipeline, sites, options, control));
  if (interrupt.requested()) return cancelled("stopped at the end of the calibration");
  return heard;
}

}  // namespace

void add_calibration_flags(CLI::App& command, CalibrationFlags& flags) {
  command.add_option("--prompts", flags.prompts,
                     "Calibrate on these: one prompt a line, or JSON lines (default: 64 built-in ones, where "
                     "calibration is needed)");
  command.add_option("--steps", flags.steps, "Denoising steps of a calibration picture (default: the model's)");
  command.add_option("--seed", flags.seed, "Of the calibration pictures; prompt i is drawn from seed + i")
      ->capture_default_str();
  command.add_option("--calibration", flags.calibration,
                     "File to keep the calibration's statistics in and to take them from (default: beside the output "
                     "until that is written)");
  command.add_option("--smooth", flags.smooth,
                     "SmoothQuant's alpha, 0 to 1: how much of the inputs' outliers goes into the weights; kept where "
                     "it lowers a product's error (default: 0, none)");
  command.add_option("--outliers", flags.outliers,
                     "Most input channels a layer that stay in 16 bits, taken from those over 32 times the median "
                     "where it lowers the product's error (default: 0)");
  add_compute_flags(command, flags.compute);
}

Status check_calibration_flags(const CalibrationFlags& flags) {
  if (flags.steps < 0) return invalid_argument("--steps", "must not be negative");
  if (flags.seed < 0) return invalid_argument("--seed", "must not be negative");
  if (!(flags.smooth >= 0 && flags.smooth <= 1)) return invalid_argument("--smooth", "must be from 0 to 1");
  if (flags.outliers < 0 || flags.outliers > 256) return invalid_argument("--outliers", "must be from 0 to 256");
  return load_options(flags.compute, "auto").status();
}

bool needs_calibration(const quantize::Recipe& recipe, const CalibrationFlags& flags) {
  return recipe.activations == quantize::Activations::kStatic || recipe.find_static() != nullptr || flags.smooth > 0 ||
         flags.outliers > 0 || !flags.prompts.empty() || !flags.calibration.empty() || flags.steps > 0;
}

std::filesystem::path statistics_beside(const std::filesystem::path& out) {
  std::filesystem::path path = out.has_filename() ? out : out.parent_path();  // "folder/"
  path += ".calibration.safetensors";
  return path;
}

Status calibrate_recipe(quantize::Recipe& recipe, const weights::TensorSource& source, const weights::ModelFiles& files,
                        const CalibrationFlags& flags, const std::filesystem::path& statistics) {
  quantize::CalibrationOptions options{
      .prompts = quantize::built_in_prompts(), .steps = flags.steps, .seed = flags.seed, .file = statistics};
  if (!flags.prompts.empty()) {
    OCTAVO_ASSIGN_OR_RETURN(quantize::PromptFile file, quantize::read_prompt_file(flags.prompts, "--prompts"));
    options.prompts = std::move(file.entries);
  }
  const auto& parts = source.parts();
  const auto transformer = std::find_if(parts.begin(), parts.end(), [](const weights::SourcePart& part) {
    return part.part == weights::Part::kTransformer;
  });
  OCTAVO_CHECK(transformer != parts.end(), "a recipe of a model without transformer");
  const std::vector<quantize::Site> sites = quantize::sites_of(*transformer);

  OCTAVO_RETURN_IF_ERROR(quantize::check_tunable(recipe, sites));
  OCTAVO_ASSIGN_OR_RETURN(options.model_hash, digest_with_progress(source));

  OCTAVO_ASSIGN_OR_RETURN(const auto load, load_options(flags.compute, "auto"));
  OCTAVO_ASSIGN_OR_RETURN(const auto pipeline, pipeline::load_pipeline(files, load));
  const auto started = Clock::now();
  OCTAVO_ASSIGN_OR_RETURN(const quantize::Statistics heard, calibrate(*pipeline, sites, options));
  spdlog::info("calibrated on {} prompts of {} steps in {:.1f} s", heard.record.prompts, heard.record.steps,
               seconds(Clock::now() - started));
  return quantize::tune(recipe, source, sites, heard, {.smooth_alpha = flags.smooth, .outliers = flags.outliers});
}

}  // namespace octavo::app
