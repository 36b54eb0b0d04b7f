#include "write_quantized.h"

#include <algorithm>
#include <cstdio>

#include "base/log.h"
#include "interrupt.h"
#include "quantize/policy.h"
#include "version.h"
#include "weights/checkpoint.h"
#include "weights/export/source_digest.h"
#include "work_progress.h"

namespace octavo::app {
namespace {

std::string gigabytes(std::size_t bytes) {
  const double number = static_cast<double>(bytes);
  return number < 1e8 ? fmt::format("{:.2f} MB", number / 1e6) : fmt::format("{:.2f} GB", number / 1e9);
}

void print_sizes(const std::vector<quantize::PartSize>& sizes) {
  std::printf("%-16s %12s %12s\n", "part", "before", "after");
  for (const quantize::PartSize& size : sizes) {
    std::printf("%-16s %12s %12s  %3.0f %%\n", size.part.c_str(), gigabytes(size.before).c_str(),
                gigabytes(size.after).c_str(),
                100.0 * static_cast<double>(size.after) / static_cast<double>(std::max<std::size_t>(size.before, 1)));
  }
}

/// A rule that matches nothing may be for another family, or misspelt.
void warn_of_idle_rules(const quantize::Policy& policy, const quantize::Recipe& recipe, const std::string& file) {
  for (std::size_t i = 0; i < policy.size(); ++i) {
    const std::string& pattern = policy[i].pattern;
    const bool used = std::any_of(recipe.layers.begin(), recipe.layers.end(),
                                  [&pattern](const auto& layer) { return quantize::matches(pattern, layer.layer); });
    if (!used) spdlog::warn("{}: rules[{}] matches no layer of this model: {}", file, i, pattern);
  }
}

}  // namespace

void add_quantize_flags(CLI::App& command, QuantizeFlags& flags) {
  command.add_option("--format", flags.format, "Of the weights: e4m3, e5m2 or int8")->capture_default_str();
  command.add_option("--activation-format", flags.activation_format,
                     "Of the products' inputs: e4m3, e5m2 or int8 (default: as --format)");
  command.add_option("--weights", flags.weights, "One scale a channel, a tensor, or a block of 128 inputs")
      ->capture_default_str();
  command
      .add_option("--activations", flags.activations,
                  "How inputs become 8 bits: token or block, one scale a token or 128 elements of it, found while "
                  "running; static, one scale a layer, found by calibration; none, inputs stay in 16 bits and weights "
                  "are widened")
      ->capture_default_str();
  command
      .add_option(
          "--policy", flags.policy,
          "Which layers keep 16 bits: default, a JSON file of rules (docs/checkpoints.md), or auto: the default, "
          "and what costs the most for its bytes is bought back, see --budget")
      ->capture_default_str();
  command
      .add_option("--t5-precision", flags.t5_precision,
                  "fp8: T5's weights are stored as E4M3 with a scale a channel and widened; keep: T5 stays as it is")
      ->capture_default_str();
}

Result<quantize::Recipe> recipe_of_flags(const weights::TensorSource& source, const QuantizeFlags& flags) {
  quantize::RecipeOptions options;
  OCTAVO_ASSIGN_OR_RETURN(options.format, quantize::parse_format(flags.format, "--format"));
  OCTAVO_ASSIGN_OR_RETURN(
      options.activation_format,
      quantize::parse_format(flags.activation_format.empty() ? flags.format : flags.activation_format,
                             "--activation-format"));
  OCTAVO_ASSIGN_OR_RETURN(options.weight_grain, quantize::parse_weight_grain(flags.weights, "--weights"));
  OCTAVO_ASSIGN_OR_RETURN(options.activations, quantize::parse_activations(flags.activations, "--activations"));
  if ((options.format == DType::kI8) != (options.activation_format == DType::kI8) &&
      options.activations != quantize::Activations::kNone) {
    return invalid_argument("--activation-format", "a product takes two FP8 formats or int8 twice, not one of each");
  }
  if (flags.t5_precision != "fp8" && flags.t5_precision != "keep") {
    return invalid_argument("--t5-precision", "'" + flags.t5_precision + "' is none of fp8, keep");
  }
  quantize::Policy policy = quantize::default_policy();
  if (flags.policy != "default" && flags.policy != "auto") {
    OCTAVO_ASSIGN_OR_RETURN(const auto json, weights::read_json_file(flags.policy));
    OCTAVO_ASSIGN_OR_RETURN(policy, quantize::policy_from_json(json, flags.policy));
  }
  const auto& parts = source.parts();
  const auto transformer = std::find_if(parts.begin(), parts.end(), [](const weights::SourcePart& part) {
    return part.part == weights::Part::kTransformer;
  });
  if (transformer == parts.end())
    return invalid_argument("--model", "has no transformer, whose products are quantised");
  OCTAVO_ASSIGN_OR_RETURN(quantize::Recipe recipe, quantize::plan_recipe(*transformer, policy, options));
  if (flags.policy == "auto") {
    recipe.policy = "auto";
  } else if (flags.policy != "default") {
    warn_of_idle_rules(policy, recipe, flags.policy);
    recipe.policy = std::filesystem::path(flags.policy).filename().string();
  }
  return recipe;
}

void print_recipe(const quantize::Recipe& recipe) {
  std::size_t width = 0, quantised = 0;
  for (const auto& layer : recipe.layers) width = std::max(width, layer.layer.size());
  for (const quantize::LayerRecipe& layer : recipe.layers) {
    quantised += layer.quantised ? 1 : 0;
    const std::string decision = layer.quantised ? fmt::format("{} {} {}", quantize::format_word(layer.format),
                                                               quantize::weight_grain_word(layer.weight_grain),
                                                               quantize::activations_word(layer.activations))
                                                 : "16 bits";
    std::printf("%-*s  %-20s  %s\n", static_cast<int>(width), layer.layer.c_str(), decision.c_str(),
                layer.reason.c_str());
  }
  std::printf("%zu of %zu layers in 8 bits\n", quantised, recipe.layers.size());
}

Result<std::string> digest_with_progress(const weights::TensorSource& source) {
  const Interrupt interrupt;
  WorkProgress progress("reading");
  return weights::digest_source(source, [&](std::size_t done, std::size_t total) {
    progress.show(done, total);
    return !interrupt.requested();
  });
}

Status write_quantized(const QuantizedWriting& what, const std::filesystem::path& out, const FolderExtras& extras) {
  quantize::QuantizedCheckpoint checkpoint{.tool = fmt::format("octavo {}", kVersion),
                                           .source = what.source,
                                           .recipe = what.recipe,
                                           .multiplier = what.multiplier,
                                           .quantize_t5 = what.quantize_t5};
  OCTAVO_ASSIGN_OR_RETURN(weights::ExportPlan plan,
                          quantize::plan_quantized_checkpoint(what.values->parts(), checkpoint));
  const auto sizes = quantize::part_sizes(what.original->parts(), plan);
  OCTAVO_RETURN_IF_ERROR(
      write_planned(*what.values, std::move(plan), weights::CheckpointLayout::kDiffusers, out, extras));
  print_sizes(sizes);
  return {};
}

}  // namespace octavo::app
