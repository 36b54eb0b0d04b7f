#include "checkpoint.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include "base/log.h"
#include "model_path.h"
#include "quantize/folding.h"
#include "quantize/plant.h"
#include "quantize/quantized_checkpoint.h"
#include "synthetic_model.h"
#include "version.h"
#include "weights/layouts/name_map.h"
#include "weights/synthesis/synthetic_source.h"
#include "write_checkpoint.h"

namespace octavo::app {
namespace {

namespace fs = std::filesystem;

struct SynthOptions {
  std::string family = "tiny";
  weights::SizeReductions reductions;
  std::string layout = "diffusers";
  std::string dtype = "bf16";
  bool without_text_encoders = false;
  int outliers = 0;
  std::uint64_t seed = 0;
  std::string tokenizers;
  std::string out;
};

/// The main file of a folder of files is called like the folder.
std::string base_name_of(const std::string& out) {
  fs::path path(out);
  if (!path.has_filename()) path = path.parent_path();  // "folder/"
  return path.filename().string();
}

Status run_synth(const SynthOptions& options) {
  using weights::CheckpointLayout;
  weights::ExportOptions exported;
  OCTAVO_ASSIGN_OR_RETURN(exported.layout, weights::parse_checkpoint_layout(options.layout, "--layout"));
  OCTAVO_ASSIGN_OR_RETURN(const auto dtype, parse_checkpoint_dtype(options.dtype));
  if (!dtype) return invalid_argument("--dtype", "must be one of f32, f16, bf16, fp8");
  if (options.outliers < 0) return invalid_argument("--outliers", "must not be negative");
  if (options.without_text_encoders && is_folder(exported.layout)) {
    return invalid_argument("--without-text-encoders", "is for layouts of one file, original and comfyui");
  }

  fs::path tokenizers(options.tokenizers);
  if (options.tokenizers.empty()) {
    OCTAVO_ASSIGN_OR_RETURN(tokenizers, find_model(""));
  }
  OCTAVO_ASSIGN_OR_RETURN(const auto tokens, count_tokens(tokenizers));
  OCTAVO_ASSIGN_OR_RETURN(const auto sizes, weights::model_sizes(options.family, options.reductions, tokens));
  OCTAVO_RETURN_IF_ERROR(check_vocabularies(tokens, sizes));
  if (options.tokenizers.empty() && sizes.clip_l.vocabulary > tokens.clip_l) {
    spdlog::info(
        "the tokenizers are those of {}: {}, {} and {} tokens for embeddings of {}, {} and {} rows, so that a prompt "
        "uses the first rows alone; --tokenizers takes the real ones",
        tokenizers.string(), tokens.clip_l, tokens.clip_g, tokens.t5, sizes.clip_l.vocabulary, sizes.clip_g.vocabulary,
        sizes.t5.vocabulary);
  }
  if (!is_folder(exported.layout)) {
    spdlog::info("a layout of one file has no room for tokenizers: give them with the model, --tokenizers {}",
                 tokenizers.string());
  }

  weights::SynthesisOptions synthesis{.seed = options.seed, .outliers = options.outliers, .dtype = *dtype};
  if (*dtype == DType::kE4M3 && exported.layout == CheckpointLayout::kComfyUi) {
    exported.scaled = weights::ScaledFp8::kNew;  // ComfyUI's own FP8 has scales
    synthesis.dtype = DType::kBF16;
  } else if (*dtype == DType::kE4M3) {
    spdlog::warn("every tensor becomes FP8 without a scale, norms and biases too, as in ComfyUI's plain FP8 files");
  }
  exported.text_encoders = !options.without_text_encoders;
  exported.base_name = base_name_of(options.out);
  exported.metadata = {
      {std::string(weights::kSynthesisedMetadata),
       fmt::format("octavo {} checkpoint synth --family {} --blocks {} --heads {} --width-of-t5 {} "
                   "--width-of-vae {} --outliers {} --seed {}; 0 = the family's",
                   kVersion, options.family, options.reductions.blocks, options.reductions.heads,
                   options.reductions.width_of_t5, options.reductions.width_of_vae, options.outliers, options.seed)}};
  const weights::SyntheticSource source(sizes, synthesis);
  return write_checkpoint(source, exported, options.out, {.tokenizers = tokenizers});
}

struct ConvertOptions {
  SourceFlags source;
  std::string layout;
  std::string dtype;
  std::string tokenizers;
  bool without_text_encoders = false;
  std::string out;
};

Status run_convert(const ConvertOptions& options) {
  weights::ExportOptions exported;
  OCTAVO_ASSIGN_OR_RETURN(exported.layout, weights::parse_checkpoint_layout(options.layout, "--layout"));
  OCTAVO_ASSIGN_OR_RETURN(exported.dtype, parse_checkpoint_dtype(options.dtype));
  const bool folder = is_folder(exported.layout);
  if (options.without_text_encoders && folder) {
    return invalid_argument("--without-text-encoders", "is for layouts of one file, original and comfyui");
  }
  if (exported.dtype == DType::kE4M3 && exported.layout == weights::CheckpointLayout::kComfyUi) {
    return invalid_argument("--dtype", "FP8 in the comfyui layout has scales: use octavo quantize --layout comfyui");
  }
  OCTAVO_ASSIGN_OR_RETURN(const auto source, open_source(options.source));
  if (!source->scaled_weight().empty() && (!exported.dtype || exported.dtype == DType::kE4M3)) {
    return invalid_argument(options.source.model, fmt::format("holds scaled FP8 ({}), which is not moved as it is; say "
                                                              "what it is widened to with --dtype bf16, f16 or f32",
                                                              source->scaled_weight()));
  }
  FolderExtras extras;
  if (folder) {
    OCTAVO_ASSIGN_OR_RETURN(extras, folder_extras(*source, options.source.model, options.tokenizers, options.layout));
  } else if (!options.tokenizers.empty()) {
    return invalid_argument("--tokenizers", "a layout of one file has no room for them");
  }
  exported.text_encoders = !options.without_text_encoders;
  exported.base_name = base_name_of(options.out);
  return write_checkpoint(*source, exported, options.out, extras);
}

struct PlantCommand {
  SourceFlags source;
  quantize::PlantOptions options;
  std::string tokenizers;
  std::string out;
};

Status run_plant(const PlantCommand& command) {
  constexpr const char* kLayout = "diffusers";
  OCTAVO_ASSIGN_OR_RETURN(const auto source, open_source(command.source));
  OCTAVO_RETURN_IF_ERROR(quantize::check_not_quantized(source->parts(), command.source.model));
  OCTAVO_ASSIGN_OR_RETURN(const FolderExtras extras,
                          folder_extras(*source, command.source.model, command.tokenizers, kLayout));
  const auto& parts = source->parts();
  const auto transformer = std::find_if(parts.begin(), parts.end(), [](const weights::SourcePart& part) {
    return part.part == weights::Part::kTransformer;
  });
  OCTAVO_ASSIGN_OR_RETURN(const quantize::Recipe recipe, quantize::plant_recipe(*transformer, command.options));
  OCTAVO_ASSIGN_OR_RETURN(const auto planted, quantize::FoldedSource::create(*source, recipe));
  // In f32: halves have neither the range of what is made small nor, for the scales' biases, the bits.
  weights::ExportOptions exported{.layout = weights::CheckpointLayout::kDiffusers, .dtype = DType::kF32};
  exported.metadata = {{"octavo.planted",
                        fmt::format("octavo {} checkpoint plant-outliers --channels {} --factor {} "
                                    "--seed {}",
                                    kVersion, command.options.channels, command.options.factor, command.options.seed)}};
  return write_checkpoint(*planted, exported, command.out, extras);
}

void report(const char* command, const Status& status, int& exit_code) {
  if (status.ok()) return;
  std::fprintf(stderr, "octavo checkpoint %s: %s\n", command, status.to_string().c_str());
  exit_code = 1;
}

void add_synth(CLI::App& checkpoint, int& exit_code) {
  auto options = std::make_shared<SynthOptions>();
  auto& reductions = options->reductions;
  CLI::App* synth = checkpoint.add_subcommand("synth", "Write a checkpoint of random weights");
  synth->add_option("--family", options->family, "large, large-turbo, medium or tiny (octavo-tiny's sizes)")
      ->capture_default_str();
  synth->add_option("--blocks", reductions.blocks, "Blocks of the transformer (default: the family's)")
      ->check(CLI::PositiveNumber);
  synth->add_option("--heads", reductions.heads, "Attention heads of the transformer, 64 wide each")
      ->check(CLI::PositiveNumber);
  synth
      ->add_option("--width-of-t5", reductions.width_of_t5,
                   "Width of T5; also makes CLIP small in proportion, each with 2 layers")
      ->check(CLI::PositiveNumber);
  synth->add_option("--width-of-vae", reductions.width_of_vae, "Channels of the autoencoder's first level")
      ->check(CLI::PositiveNumber);
  synth->add_option("--layout", options->layout, "diffusers, original, parts or comfyui")->capture_default_str();
  synth->add_option("--dtype", options->dtype, "f32, f16, bf16 or fp8; fp8 has scales in the comfyui layout")
      ->capture_default_str();
  synth->add_flag("--without-text-encoders", options->without_text_encoders,
                  "Layouts of one file: transformer and autoencoder alone");
  synth
      ->add_option("--outliers", options->outliers,
                   "Channels a site that are 50 to 1000 times the others: inputs of q, k, v and of the feed-forward "
                   "products of every block")
      ->capture_default_str();
  synth->add_option("--seed", options->seed, "The same seed gives the same values in every layout")
      ->capture_default_str();
  synth->add_option("--tokenizers", options->tokenizers,
                    "Folder with tokenizer, tokenizer_2, tokenizer_3 to copy (default: the embedded model's)");
  synth->add_option("-o,--out", options->out, "Folder (diffusers, parts) or file (original, comfyui) to write")
      ->required();
  synth->callback([options, &exit_code] { report("synth", run_synth(*options), exit_code); });
}

void add_convert(CLI::App& checkpoint, int& exit_code) {
  auto options = std::make_shared<ConvertOptions>();
  CLI::App* convert =
      checkpoint.add_subcommand("convert", "Write a checkpoint again in another layout, bytes unchanged");
  add_source_flags(*convert, options->source);
  convert->add_option("--layout", options->layout, "diffusers, original, parts or comfyui")->required();
  convert->add_option("--dtype", options->dtype, "f32, f16, bf16 or fp8 for every tensor (default: each as it is)");
  convert->add_flag("--without-text-encoders", options->without_text_encoders,
                    "Layouts of one file: transformer and autoencoder alone");
  convert->add_option("--tokenizers", options->tokenizers,
                      "Folder with tokenizer, tokenizer_2, tokenizer_3 for a folder layout (default: the model's own)");
  convert->add_option("-o,--out", options->out, "Folder (diffusers, parts) or file (original, comfyui) to write")
      ->required();
  convert->callback([options, &exit_code] { report("convert", run_convert(*options), exit_code); });
}

void add_plant(CLI::App& checkpoint, int& exit_code) {
  auto command = std::make_shared<PlantCommand>();
  CLI::App* plant = checkpoint.add_subcommand(
      "plant-outliers", "Write a model that draws the same pictures and is harder to quantise, for tests of that");
  add_source_flags(*plant, command->source);
  plant
      ->add_option("--channels", command->options.channels,
                   "Channels of each input of q, k, v, of attention's output and of the first feed-forward product")
      ->capture_default_str();
  plant
      ->add_option("--factor", command->options.factor,
                   "They become a quarter, a half or all of this times larger, what reads them smaller; powers of two")
      ->capture_default_str();
  plant->add_option("--seed", command->options.seed, "Draws channels and multiples")->capture_default_str();
  plant->add_option("--tokenizers", command->tokenizers,
                    "Folder with tokenizer, tokenizer_2, tokenizer_3 (default: the model's own)");
  plant->add_option("-o,--out", command->out, "Folder to write, in the diffusers layout and f32")->required();
  plant->callback([command, &exit_code] { report("plant-outliers", run_plant(*command), exit_code); });
}

}  // namespace

void add_checkpoint(CLI::App& app, int& exit_code) {
  CLI::App* checkpoint = app.add_subcommand("checkpoint", "Write checkpoints: random ones, and other layouts");
  checkpoint->require_subcommand(1);
  checkpoint->footer(
      "Layouts: diffusers, a folder with a folder a part, sharded when large; original, one file as Stability "
      "publishes "
      "them, with text encoders; parts, a folder with transformer and autoencoder in one file and clip_l, clip_g and "
      "t5xxl in files of their own; comfyui, one file as ComfyUI saves it. All is written beside its name first: a "
      "failure or Ctrl-C leaves nothing behind.");
  add_synth(*checkpoint, exit_code);
  add_convert(*checkpoint, exit_code);
  add_plant(*checkpoint, exit_code);
}

}  // namespace octavo::app
