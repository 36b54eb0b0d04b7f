#include "compare.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "compute_flags.h"
#include "interrupt.h"
#include "model_path.h"
#include "progress_bar.h"
#include "quantize/compare/comparison.h"
#include "quantize/compare/report_html.h"
#include "quantize/compare/report_json.h"
#include "quantize/compare/task_accuracy.h"
#include "quantize/judge/detector.h"
#include "version.h"

namespace octavo::app {
namespace {

namespace fs = std::filesystem;

constexpr const char* kInterrupted = "interrupted; nothing was written";

struct CompareOptions {
  std::string a, b;
  std::string precision_a = "auto", precision_b = "auto";
  ModelFlags parts;  // of both models
  std::string prompts;
  int seeds = 1;
  std::int64_t first_seed = 0;
  generation::GenerationRequest request;
  std::string report;
  std::size_t pictures = 24;
  bool json_only = false;
  std::string detector;
  std::string baseline;
  ComputeFlags compute;
};

/// Beside the report's folder while the work lasts; nothing of it remains, whatever happens.
class WorkFolder {
 public:
  static Result<std::unique_ptr<WorkFolder>> create(const fs::path& report) {
    std::error_code error;
    if (fs::exists(report, error) && !fs::is_directory(report, error)) {
      return invalid_argument("--report", report.string() + " is not a folder");
    }
    const fs::path parent = report.has_parent_path() ? report.parent_path() : fs::path(".");
    if (!fs::is_directory(parent, error)) {
      return not_found("--report", "the folder " + parent.string() + " does not exist");
    }
    const fs::path path = report.string() + fmt::format(".partial-{}", getpid());
    if (!fs::create_directory(path, error) || error) {
      return resource_exhausted("--report", path.string() + " cannot be made: " + error.message());
    }
    return std::unique_ptr<WorkFolder>(new WorkFolder(path));
  }
  ~WorkFolder() {
    std::error_code error;
    fs::remove_all(path_, error);
  }
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  explicit WorkFolder(fs::path path) : path_(std::move(path)) {}
  fs::path path_;
};

std::string flag_of(const std::string& field) {
  if (field == "guidance_scale") return "--guidance";
  for (const char* known : {"width", "height", "steps", "sampler", "schedule"}) {
    if (field == known) return "--" + field;
  }
  return field;
}

Result<quantize::ModelChoice> choose(const CompareOptions& options, const std::string& model,
                                     const std::string& precision, char letter) {
  quantize::ModelChoice choice{.files = {}, .options = {}, .precision = precision, .flag = std::string("--") + letter};
  ModelFlags flags = options.parts;
  flags.model = model;
  auto files = find_model_files(flags);
  if (!files.ok()) return files.status();
  choice.files = *files;
  ComputeFlags compute = options.compute;
  compute.fp8_attention = compute.fp8_attention && letter == 'b';
  auto load = load_options(compute, precision);
  if (!load.ok()) {
    const Status& error = load.status();
    const bool of_precision = error.subject() == "--precision";
    return Status(error.code(), error.message(), of_precision ? std::string("--precision-") + letter : error.subject());
  }
  choice.options = *load;
  return choice;
}

Status check_typed(const CLI::App& command, const CompareOptions& options) {
  const auto& request = options.request;
  for (const auto& [flag, value] :
       {std::pair{"--width", request.width}, {"--height", request.height}, {"--steps", request.steps}}) {
    if (command.count(flag) > 0 && value == 0) return invalid_argument(flag, "0 draws nothing");
  }
  if (command.count("--guidance") > 0 && !(request.guidance_scale >= 0)) {
    return invalid_argument("--guidance", "must be a number from 0 to 100");
  }
  if (options.seeds < 1) return invalid_argument("--seeds", "must be at least 1");
  if (options.first_seed < 0) return invalid_argument("--seed", "must not be negative");
  return {};
}

/// The last seed of every prompt is a number, too.
Status check_seeds(const CompareOptions& options, const quantize::PromptFile& prompts) {
  const std::int64_t most = std::numeric_limits<std::int64_t>::max() - options.seeds;
  if (options.first_seed > most) return invalid_argument("--seed", "is too large for --seeds");
  for (std::size_t i = 0; i < prompts.entries.size(); ++i) {
    if (prompts.entries[i].seed.value_or(0) <= most) continue;
    return invalid_argument("--prompts", fmt::format("the seed of prompt {} is too large for --seeds", i + 1));
  }
  return {};
}

Status write_text(const fs::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file.write(text.data(), static_cast<std::streamsize>(text.size()));
  file.close();
  return file.good() ? Status() : resource_exhausted("--report", path.string() + " cannot be written");
}

/// Written in the work folder first, so that a report is whole or is not there.
Status publish(const WorkFolder& work, const fs::path& report,
               const std::vector<std::pair<std::string, std::string>>& files) {
  for (const auto& [name, text] : files) OCTAVO_RETURN_IF_ERROR(write_text(work.path() / name, text));
  std::error_code error;
  fs::create_directory(report, error);
  fs::remove(report / "report.html", error);  // an older page would not be of the new figures
  for (const auto& [name, text] : files) {
    if (!error) fs::rename(work.path() / name, report / name, error);
  }
  if (error) return resource_exhausted("--report", report.string() + " cannot be written: " + error.message());
  return {};
}

/// The judge of pictures whose prompts have facts; nothing when no prompt has any, or --detector none.
Result<std::optional<quantize::Detector>> find_judge(const CompareOptions& options,
                                                     const quantize::PromptFile& prompts) {
  OCTAVO_ASSIGN_OR_RETURN(const bool facts, quantize::check_facts(prompts, "--prompts"));
  if (options.detector == "none") return std::optional<quantize::Detector>();
  std::optional<fs::path> path;
  if (!options.detector.empty()) {
    path = options.detector;
    if (!facts) return invalid_argument("--detector", "no prompt of " + options.prompts + " has facts to judge by");
  } else if (facts) {
    path = find_near_program("tools/tiny/detector.safetensors");
    if (!path) spdlog::warn("prompts have facts, but no detector is near the program: name one with --detector");
  }
  if (!path) return std::optional<quantize::Detector>();
  auto detector = quantize::Detector::load(*path);
  if (!detector.ok()) return Status(detector.status().code(), detector.status().to_string(), "--detector");
  return std::optional(std::move(*detector));
}

std::string shown(double value, int decimals) {
  return std::isfinite(value) ? fmt::format("{:.{}f}", value, decimals) : "none";
}

void print_summary(const quantize::Comparison& comparison) {
  std::printf("%-30s %14s %12s %14s %12s\n", "", "B against A", "worst", "bf16 noise", "worst");
  for (const quantize::Figure& figure : quantize::figures()) {
    const auto ab = quantize::summary(comparison, figure, &quantize::ComparedPicture::ab);
    const auto floor = quantize::summary(comparison, figure, &quantize::ComparedPicture::floor);
    const std::string title = fmt::format("{}{}{}", figure.title, *figure.unit ? ", " : "", figure.unit);
    std::printf("%-30s %14s %12s %14s %12s\n", title.c_str(), shown(ab.mean, figure.decimals).c_str(),
                shown(ab.worst, figure.decimals).c_str(), shown(floor.mean, figure.decimals).c_str(),
                shown(floor.worst, figure.decimals).c_str());
  }
}

void print_accuracy(const quantize::TaskAccuracy& accuracy) {
  std::printf("\n%-30s %14s %12s %14s %12s\n", "percent", "A", "B", "A in f32", "A in bf16");
  for (const quantize::AccuracyRow& row : accuracy.rows) {
    if (row.asked == 0) continue;
    std::printf("%-30s %14.1f %12.1f %14.1f %12.1f\n", row.title.c_str(), row.percent(quantize::Run::kA),
                row.percent(quantize::Run::kB), row.percent(quantize::Run::kF32), row.percent(quantize::Run::kBf16));
  }
}

/// What stopped the work, with the flag that a person typed.
Status explained(const Status& error) {
  if (error.code() == ErrorCode::kCancelled) return cancelled(kInterrupted);
  return Status(error.code(), error.message(), flag_of(error.subject()));
}

Status run_compare(const CLI::App& command, const CompareOptions& options) {
  OCTAVO_RETURN_IF_ERROR(check_typed(command, options));
  quantize::ComparisonOptions wanted;
  OCTAVO_ASSIGN_OR_RETURN(wanted.a, choose(options, options.a, options.precision_a, 'a'));
  OCTAVO_ASSIGN_OR_RETURN(wanted.b,
                          choose(options, options.b.empty() ? options.a : options.b, options.precision_b, 'b'));
  OCTAVO_ASSIGN_OR_RETURN(wanted.prompts, quantize::read_prompt_file(options.prompts, "--prompts"));
  OCTAVO_RETURN_IF_ERROR(check_seeds(options, wanted.prompts));
  wanted.prompts_path = options.prompts;
  wanted.seeds = options.seeds;
  wanted.first_seed = options.first_seed;
  wanted.request = options.request;
  OCTAVO_ASSIGN_OR_RETURN(const auto judge, find_judge(options, wanted.prompts));
  fs::path report(options.report);
  if (!report.has_filename()) report = report.parent_path();  // "folder/"
  OCTAVO_ASSIGN_OR_RETURN(const auto work, WorkFolder::create(report));
  wanted.work = work->path();
  wanted.baseline = options.baseline;
  wanted.tool = fmt::format("octavo {}", kVersion);

  const Interrupt interrupt;
  std::optional<ProgressBar> bar(std::in_place);
  quantize::ComparisonControl control;
  control.on_progress = [&](const quantize::ComparisonProgress& at) {
    if (interrupt.requested()) control.cancel.cancel();
    bar->show({.image_index = 0,
               .image_count = 1,
               .step = static_cast<int>(at.calls_done),
               .steps = static_cast<int>(at.calls),
               .stage = fmt::format("{}, picture {}/{}, call", at.run, at.picture + 1, at.pictures)});
  };
  const auto compared = quantize::compare_models(wanted, control);
  if (!compared.ok()) return explained(compared.status());
  const quantize::Comparison& comparison = *compared;
  std::optional<quantize::TaskAccuracy> accuracy;
  if (judge) {
    const auto judged = quantize::judge_pictures(comparison, *judge, control);
    if (!judged.ok()) return explained(judged.status());
    accuracy = *judged;
  }
  bar.reset();
  const std::string& tool = wanted.tool;
  std::vector<std::pair<std::string, std::string>> files = {
      {"report.json",
       quantize::report_text(quantize::report_json(
           comparison, tool, accuracy ? boost::json::value(to_json(*accuracy)) : boost::json::value()))}};
  if (!options.json_only) {
    OCTAVO_ASSIGN_OR_RETURN(
        std::string page,
        quantize::report_html(comparison, {.tool = tool, .most_pictures = options.pictures, .accuracy = accuracy}));
    files.emplace_back("report.html", std::move(page));
  }
  if (interrupt.requested()) return cancelled(kInterrupted);
  OCTAVO_RETURN_IF_ERROR(publish(*work, report, files));
  print_summary(comparison);
  if (accuracy) print_accuracy(*accuracy);
  std::printf("%s\n", (report / files.back().first).c_str());
  return {};
}

}  // namespace

void add_compare(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<CompareOptions>();
  auto& request = options->request;
  CLI::App* compare = app.add_subcommand("compare", "Measure and show how two models, or two precisions, differ");
  compare->add_option("--a", options->a, "Model A: what B is measured against (default: the embedded octavo-tiny)");
  compare->add_option("--b", options->b, "Model B (default: A, for another precision of it)");
  compare->add_option("--precision-a,--dtype-a", options->precision_a, "Arithmetic of A: auto, f32, bf16, fp8 or w8a16")
      ->capture_default_str();
  compare->add_option("--precision-b,--dtype-b", options->precision_b, "Arithmetic of B")->capture_default_str();
  compare->add_option("--clip-l", options->parts.clip_l, "Of both models, as for generate");
  compare->add_option("--clip-g", options->parts.clip_g, "Of both models");
  compare->add_option("--t5", options->parts.t5, "Of both models; none = do without");
  compare->add_option("--vae", options->parts.vae, "Of both models");
  compare->add_option("--tokenizers", options->parts.tokenizers, "Of both models");
  compare->add_option("--family", options->parts.family, "Of both models");
  compare
      ->add_option("--prompts", options->prompts,
                   "One prompt a line, or JSON lines {\"prompt\", \"negative_prompt\", \"seed\", \"facts\"}; "
                   "tools/tiny/held_out.jsonl holds octavo-tiny's evaluation, whose facts are then checked")
      ->required();
  compare->add_option("--seeds", options->seeds, "Pictures a prompt")->capture_default_str();
  compare->add_option("--seed", options->first_seed, "The first of the seeds, of prompts that have none of their own")
      ->capture_default_str();
  compare->add_option("--steps", request.steps, "Denoising steps (default: A's)");
  compare->add_option("--guidance,--cfg-scale", request.guidance_scale, "Guidance scale (default: A's)");
  compare->add_option("--width", request.width, "Pixels (default: A's)");
  compare->add_option("--height", request.height, "Pixels (default: A's)");
  compare->add_option("--sampler", request.sampler, "As for generate; deterministic ones compare best");
  compare->add_option("--schedule", request.schedule, "As for generate");
  compare
      ->add_option("--report", options->report,
                   "Folder for report.html and report.json; those in it are replaced when all is done")
      ->required();
  compare->add_option("--pictures", options->pictures, "Shown in report.html, the furthest apart first")
      ->capture_default_str();
  compare->add_option(
      "--detector", options->detector,
      "Reads the facts of pictures whose prompts have some (default: octavo-tiny's, in tools/tiny; none "
      "= do without)");
  compare->add_option("--baseline", options->baseline,
                      "Folder that keeps what A and the noise floor gave: other B's against the same A then run alone");
  compare->add_flag("--json-only", options->json_only, "Leave report.html out");
  add_compute_flags(*compare, options->compute);
  compare->get_option("--fp8-attention")->description("B's attention with q and k in E4M3, as for generate");
  compare->footer(
      "Measured: the guided velocity at the same latents, step by step; latents and pictures (PSNR, SSIM, a perceptual "
      "distance) at the end of each model's own way; beside all of it the noise floor, model A in bf16 against itself "
      "in f32. One model is in memory at a time; between the models latents and pictures lie in a folder "
      "beside the report's, which a failure or Ctrl-C removes. docs/quality.md defines every figure.");
  compare->callback([options, compare, &exit_code] {
    const Status status = run_compare(*compare, *options);
    if (!status.ok()) {
      std::fprintf(stderr, "octavo compare: %s\n", status.to_string().c_str());
      exit_code = 1;
    }
  });
}

}  // namespace octavo::app
