#include "quantize.h"

#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>

#include "auto_policy.h"
#include "calibrate_recipe.h"
#include "model_path.h"
#include "quantize/folding.h"
#include "version.h"
#include "write_checkpoint.h"
#include "write_quantized.h"

namespace octavo::app {
namespace {

constexpr const char* kDefaultBudget = "5%";

struct QuantizeOptions {
  SourceFlags source;
  QuantizeFlags flags;
  CalibrationFlags calibration;
  std::string budget;
  std::string layout = "diffusers";
  std::string scaled;
  std::string tokenizers;
  bool explain = false;
  std::string out;
};

Status run_comfyui(const QuantizeOptions& options, const weights::CheckpointSource& source) {
  const std::string scaled = options.scaled.empty() ? "new" : options.scaled;
  weights::ExportOptions exported{.layout = weights::CheckpointLayout::kComfyUi};
  if (scaled == "new") {
    exported.scaled = weights::ScaledFp8::kNew;
  } else if (scaled == "old") {
    exported.scaled = weights::ScaledFp8::kOld;
  } else {
    return invalid_argument("--scaled", "'" + scaled + "' is neither new nor old");
  }
  if (!source.has_part(weights::Part::kTransformer) && !source.has_part(weights::Part::kTextEncoder3)) {
    return invalid_argument(options.source.model, "has neither a transformer nor a T5, whose weights become FP8");
  }
  exported.metadata = {{"octavo.quantised", fmt::format("octavo {} quantize --layout comfyui --scaled {}: e4m3, one "
                                                        "scale a weight, largest magnitude / 448",
                                                        kVersion, scaled)}};
  return write_checkpoint(source, exported, options.out, {});
}

Status run_folder(const QuantizeOptions& options, const weights::CheckpointSource& source) {
  OCTAVO_RETURN_IF_ERROR(check_calibration_flags(options.calibration));
  OCTAVO_ASSIGN_OR_RETURN(quantize::Recipe recipe, recipe_of_flags(source, options.flags));
  const bool automatic = options.flags.policy == "auto";
  FolderExtras extras;
  // What can be refused is refused before the model is read or run.
  if (!options.out.empty()) OCTAVO_RETURN_IF_ERROR(weights::check_destination(options.out));
  if (!options.out.empty() || automatic) {  // auto draws with trial folders
    OCTAVO_ASSIGN_OR_RETURN(extras, folder_extras(source, options.source.model, options.tokenizers, options.layout));
  }
  std::filesystem::path statistics(options.calibration.calibration);
  if (!automatic && !options.budget.empty()) return invalid_argument("--budget", "is for --policy auto");
  if (automatic || needs_calibration(recipe, options.calibration)) {
    if (statistics.empty() && !options.out.empty()) statistics = statistics_beside(options.out);
    weights::ModelFiles files = options.source.model;
    files.clip_l = options.source.clip_l;
    files.clip_g = options.source.clip_g;
    files.t5 = options.source.t5;
    files.vae = options.source.vae;
    files.tokenizers = options.tokenizers;
    OCTAVO_RETURN_IF_ERROR(calibrate_recipe(recipe, source, files, options.calibration, statistics));
    if (automatic) {
      std::filesystem::path scratch = options.out.empty() ? std::filesystem::temp_directory_path() / "octavo" : [&] {
        const std::filesystem::path out(options.out);
        return out.has_filename() ? out : out.parent_path();
      }();
      scratch += fmt::format(".measured-{}", ::getpid());
      OCTAVO_RETURN_IF_ERROR(apply_auto_policy(recipe, source, files, options.calibration,
                                               options.budget.empty() ? kDefaultBudget : options.budget, extras,
                                               scratch, options.explain));
    }
  }
  if (options.explain) print_recipe(recipe);
  if (options.out.empty()) return {};
  OCTAVO_ASSIGN_OR_RETURN(const auto folded, quantize::FoldedSource::create(source, recipe));
  QuantizedWriting writing{.original = &source, .values = folded.get(), .recipe = &recipe};
  writing.multiplier = [&](std::string_view layer) { return folded->multiplier(layer); };
  writing.quantize_t5 = options.flags.t5_precision == "fp8";
  writing.source.model = name_of_model(options.source.model);
  if (recipe.calibration) {
    writing.source.hash = recipe.calibration->model_hash;
  } else {
    OCTAVO_ASSIGN_OR_RETURN(writing.source.hash, digest_with_progress(source));
  }
  OCTAVO_RETURN_IF_ERROR(write_quantized(writing, options.out, extras));
  if (options.calibration.calibration.empty() && !statistics.empty()) std::filesystem::remove(statistics);
  return {};
}

Status run_quantize(const QuantizeOptions& options, bool folder_flags_given) {
  if (options.out.empty() && !options.explain) return invalid_argument("--out", "is missing: the folder to write");
  if (options.layout == "diffusers") {
    if (!options.scaled.empty()) return invalid_argument("--scaled", "is for --layout comfyui");
    OCTAVO_ASSIGN_OR_RETURN(const auto source, open_source(options.source));
    OCTAVO_RETURN_IF_ERROR(quantize::check_not_quantized(source->parts(), options.source.model));
    return run_folder(options, *source);
  }
  if (options.layout != "comfyui") {
    return invalid_argument("--layout", "'" + options.layout + "' is neither diffusers nor comfyui");
  }
  if (folder_flags_given) {
    return invalid_argument("--layout",
                            "comfyui has one form, E4M3 with a scale a weight: leave the flags that choose "
                            "another, --explain and --tokenizers out, or --layout comfyui");
  }
  OCTAVO_ASSIGN_OR_RETURN(const auto source, open_source(options.source));
  OCTAVO_RETURN_IF_ERROR(quantize::check_not_quantized(source->parts(), options.source.model));
  return run_comfyui(options, *source);
}

}  // namespace

void add_quantize(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<QuantizeOptions>();
  CLI::App* quantize = app.add_subcommand("quantize", "Turn 16-bit weights into 8-bit ones");
  add_source_flags(*quantize, options->source);
  add_quantize_flags(*quantize, options->flags);
  add_calibration_flags(*quantize, options->calibration);
  quantize->add_option("--budget", options->budget,
                       "With --policy auto: how many more bytes the products that are bought back may take, as bytes "
                       "(20M) or as a share of the products' 8-bit weights (default: 5%)");
  quantize->add_flag("--explain", options->explain,
                     "Print what is decided layer by layer and why; without --out, write nothing");
  quantize
      ->add_option("--layout", options->layout,
                   "diffusers: a folder that every command takes as --model; comfyui: one file with scaled FP8, as "
                   "ComfyUI reads it")
      ->capture_default_str();
  quantize->add_option("--scaled", options->scaled,
                       "With --layout comfyui: new, weight_scale and comfy_quant (ComfyUI since late 2025, the "
                       "default), or old, scale_weight and scaled_fp8");
  quantize->add_option("--tokenizers", options->tokenizers,
                       "Folder with tokenizer, tokenizer_2, tokenizer_3 to copy (default: the model's own)");
  quantize->add_option("-o,--out", options->out, "Folder (diffusers) or file (comfyui) to write");
  quantize->footer(
      "In the diffusers form the products of the transformer's blocks become 8 bits; modulations and T5 are stored in "
      "8 bits and multiplied in 16; embedders, the final layer, CLIP and the autoencoder keep 16 (f32 becomes bf16). "
      "In "
      "the comfyui form every linear layer of the transformer and of T5 becomes E4M3 with one scale each. All is "
      "written beside its name first: a failure or Ctrl-C leaves nothing behind.");
  quantize->callback([options, quantize, &exit_code] {
    bool folder_flags_given = false;
    for (const char* flag :
         {"--format", "--activation-format", "--weights", "--activations", "--policy", "--t5-precision", "--explain",
          "--tokenizers", "--prompts", "--steps", "--seed", "--calibration", "--smooth", "--outliers", "--budget"}) {
      folder_flags_given = folder_flags_given || quantize->count(flag) > 0;
    }
    const Status status = run_quantize(*options, folder_flags_given);
    if (!status.ok()) {
      std::fprintf(stderr, "octavo quantize: %s\n", status.to_string().c_str());
      exit_code = 1;
    }
  });
}

}  // namespace octavo::app
