#include "auto_policy.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/log.h"
#include "interrupt.h"
#include "pipeline/pipeline.h"
#include "quantize/buy_back.h"
#include "quantize/calibrate.h"
#include "quantize/folding.h"
#include "quantize/quantized_checkpoint.h"
#include "version.h"
#include "work_progress.h"

namespace octavo::app {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostMeasuredBytes = std::size_t{1} << 30;
constexpr double kWorstError = 1e30;
constexpr std::size_t kPictures = 4, kCallsOfPicture = 4;  // 16 velocities, from the first steps to the last

/// What the 16-bit model said along its own way.
struct Asked {
  generation::GenerationRequest request;
  std::vector<pipeline::ModelCall> calls;
  std::vector<std::vector<float>> velocities;
};

std::vector<float> values_of(const TensorView& view) {
  const float* values = view.f32();
  return std::vector<float>(values, values + view.element_count());
}

Result<std::vector<Asked>> ask(const weights::ModelFiles& files, const CalibrationFlags& flags) {
  auto prompts = quantize::built_in_prompts();
  if (!flags.prompts.empty()) {
    OCTAVO_ASSIGN_OR_RETURN(quantize::PromptFile file, quantize::read_prompt_file(flags.prompts, "--prompts"));
    prompts = std::move(file.entries);
  }
  OCTAVO_ASSIGN_OR_RETURN(const auto load, load_options(flags.compute, "auto"));
  OCTAVO_ASSIGN_OR_RETURN(const auto pipeline, pipeline::load_pipeline(files, load));
  std::vector<Asked> all;
  const std::size_t pictures = std::min(kPictures, prompts.size());
  for (std::size_t i = 0; i < pictures; ++i) {
    // Spread over the set, its first prompt left out where there are others: the built-in one is empty.
    const std::size_t index = std::min(prompts.size() - 1, (2 * i + 1) * prompts.size() / (2 * pictures));
    Asked asked;
    asked.request.prompt = prompts[index].prompt;
    asked.request.negative_prompt = prompts[index].negative_prompt;
    asked.request.prompt_syntax = "plain";
    asked.request.steps = flags.steps;
    asked.request.seed = flags.seed + static_cast<std::int64_t>(index);
    asked.request.sampler = "euler";
    OCTAVO_ASSIGN_OR_RETURN(asked.request, generation::resolve(std::move(asked.request), pipeline->capabilities()));
    OCTAVO_ASSIGN_OR_RETURN(pipeline::DenoiseState state, pipeline->begin(asked.request, 0));
    const int steps = state.sampler.steps();
    pipeline->set_call_observer([&](int step, float sigma, const TensorView& latents, const TensorView& velocity) {
      // Step i of n is asked about when it is the middle one of its part of the loop.
      for (std::size_t part = 0; part < kCallsOfPicture; ++part) {
        if (step != static_cast<int>((2 * part + 1) * static_cast<std::size_t>(steps) / (2 * kCallsOfPicture)))
          continue;
        asked.calls.push_back({step, sigma, values_of(latents)});
        asked.velocities.push_back(values_of(velocity));
        return;
      }
    });
    const Status status = pipeline->advance(state, steps, {});
    pipeline->set_call_observer({});
    OCTAVO_RETURN_IF_ERROR(status);
    all.push_back(std::move(asked));
  }
  return all;
}

/// Removed with all it holds.
class ScratchFolder {
 public:
  explicit ScratchFolder(fs::path path) : path_(std::move(path)) {}
  ~ScratchFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

/// Squared error over squared velocity of a model with this recipe.
Result<double> velocity_error(const quantize::Recipe& recipe, const weights::TensorSource& source,
                              const std::vector<Asked>& all, const CalibrationFlags& flags, const FolderExtras& extras,
                              const fs::path& folder) {
  const ScratchFolder scratch(folder);
  OCTAVO_ASSIGN_OR_RETURN(const auto folded, quantize::FoldedSource::create(source, recipe));
  quantize::QuantizedCheckpoint checkpoint{.tool = fmt::format("octavo {}", kVersion),
                                           .source = {.model = "one product alone", .hash = "", .loras = {}},
                                           .recipe = &recipe,
                                           .quantize_t5 = false};
  checkpoint.multiplier = [&](std::string_view layer) { return folded->multiplier(layer); };
  OCTAVO_ASSIGN_OR_RETURN(weights::ExportPlan plan, quantize::plan_quantized_checkpoint(folded->parts(), checkpoint));
  OCTAVO_RETURN_IF_ERROR(write_quietly(*folded, std::move(plan), scratch.path(), extras));
  OCTAVO_ASSIGN_OR_RETURN(const auto load, load_options(flags.compute, "auto"));
  OCTAVO_ASSIGN_OR_RETURN(const auto pipeline, pipeline::load_pipeline(scratch.path(), load));
  double error = 0, power = 0;
  for (const Asked& asked : all) {
    OCTAVO_ASSIGN_OR_RETURN(const pipeline::DenoiseState state, pipeline->begin(asked.request, 0));
    OCTAVO_ASSIGN_OR_RETURN(const auto said, pipeline->predict(state, asked.calls, {}));
    for (std::size_t call = 0; call < said.size(); ++call) {
      for (std::size_t i = 0; i < said[call].size(); ++i) {
        const double exact = asked.velocities[call][i], difference = said[call][i] - exact;
        error += difference * difference;
        power += exact * exact;
      }
    }
  }
  // NaN, or a model that says nothing: worse than any error that can be measured.
  return std::isfinite(error) && power > 0 ? error / power : kWorstError;
}

/// A log line a load, forty times over, would hide what matters.
class QuietLog {
 public:
  QuietLog() : level_(spdlog::get_level()) { spdlog::set_level(std::max(level_, spdlog::level::err)); }
  ~QuietLog() { spdlog::set_level(level_); }
  QuietLog(const QuietLog&) = delete;
  QuietLog& operator=(const QuietLog&) = delete;

 private:
  spdlog::level::level_enum level_;
};

void print_ranking(const std::vector<quantize::Purchase>& purchases) {
  const auto decibels = [](double error) {
    return error > 0 ? fmt::format("{:.1f}", -10 * std::log10(error)) : std::string("-");
  };
  std::printf("%4s  %10s  %10s  %12s  %-11s  %s\n", "rank", "alone (dB)", "output(dB)", "bytes", "", "product");
  for (const quantize::Purchase& purchase : purchases) {
    std::string layers = purchase.layers.front();
    for (std::size_t i = 1; i < purchase.layers.size(); ++i) {
      layers += ", " + purchase.layers[i].substr(purchase.layers[i].rfind('.') + 1);
    }
    std::printf("%4zu  %10s  %10s  %12zu  %-11s  %s\n", purchase.rank, decibels(purchase.velocity_error).c_str(),
                decibels(purchase.output_error).c_str(), purchase.bytes, purchase.bought ? "bought back" : "",
                layers.c_str());
  }
  std::printf(
      "Ranked by error a byte. alone: velocity SQNR of the model when this product alone is in 8 bits; output: "
      "SQNR of the product itself.\n\n");
}

}  // namespace

Status apply_auto_policy(quantize::Recipe& recipe, const weights::TensorSource& source,
                         const weights::ModelFiles& files, const CalibrationFlags& flags, const std::string& budget,
                         const FolderExtras& extras, const fs::path& scratch, bool explain) {
  const auto& parts = source.parts();
  const auto transformer = std::find_if(parts.begin(), parts.end(), [](const weights::SourcePart& part) {
    return part.part == weights::Part::kTransformer;
  });
  std::size_t bytes = 0;
  for (const weights::SourceTensor& tensor : transformer->tensors) {
    bytes += static_cast<std::size_t>(tensor.shape.element_count()) * dtype_size(tensor.dtype);
  }
  auto purchases = quantize::purchases_of(recipe, quantize::sites_of(*transformer), *transformer);
  OCTAVO_ASSIGN_OR_RETURN(const std::size_t allowed, quantize::parse_budget(budget, purchases));
  if (bytes > kMostMeasuredBytes) {
    spdlog::info(
        "--policy auto: products are ranked by their own output error; measuring the velocity would run a "
        "transformer of {:.1f} GB {} times",
        static_cast<double>(bytes) / 1e9, purchases.size());
  } else {
    OCTAVO_ASSIGN_OR_RETURN(const std::vector<Asked> asked, ask(files, flags));
    const QuietLog quiet;
    const Interrupt interrupt;
    WorkProgress progress("measuring products");
    for (std::size_t i = 0; i < purchases.size(); ++i) {
      progress.show_count(i, purchases.size());
      if (interrupt.requested()) return cancelled("stopped while products were measured");
      OCTAVO_ASSIGN_OR_RETURN(purchases[i].velocity_error, velocity_error(quantize::alone(recipe, purchases[i].layers),
                                                                          source, asked, flags, extras, scratch));
    }
    if (interrupt.requested()) return cancelled("stopped while products were measured");
  }
  quantize::buy_back(recipe, purchases, allowed);
  if (explain) print_ranking(purchases);
  std::size_t bought = 0, spent = 0;
  for (const quantize::Purchase& purchase : purchases) {
    bought += purchase.bought ? 1 : 0;
    spent += purchase.bought ? purchase.bytes : 0;
  }
  spdlog::info("--policy auto: {} of {} products bought back for {} of {} bytes", bought, purchases.size(), spent,
               allowed);
  return {};
}

}  // namespace octavo::app
