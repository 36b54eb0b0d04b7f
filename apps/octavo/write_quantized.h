// What the commands that write 8-bit weights share: the flags that say how, the recipe they make, and the writing with
// its provenance and its table of sizes.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <string>

#include "base/status.h"
#include "quantize/quantized_checkpoint.h"
#include "quantize/recipe.h"
#include "write_checkpoint.h"

namespace octavo::app {

struct QuantizeFlags {
  std::string format = "e4m3";
  std::string activation_format;  // empty: as format
  std::string weights = "channel";
  std::string activations = "token";
  std::string policy = "default";
  std::string t5_precision = "fp8";
};
void add_quantize_flags(CLI::App& command, QuantizeFlags& flags);

/// The decision for every Linear of the source's transformer by the flags alone: nothing is run. kInvalidArgument
/// naming the flag, or the policy's file and rule.
Result<quantize::Recipe> recipe_of_flags(const weights::TensorSource& source, const QuantizeFlags& flags);

/// --explain: a line a layer, with the decision and its reason.
void print_recipe(const quantize::Recipe& recipe);

/// The digest of the 16-bit model, with progress and Ctrl-C.
Result<std::string> digest_with_progress(const weights::TensorSource& source);

struct QuantizedWriting {
  const weights::TensorSource* original = nullptr;  // the 16-bit model as it came: sizes before
  const weights::TensorSource* values = nullptr;    // what becomes codes: the same, or with changes folded in
  const quantize::Recipe* recipe = nullptr;
  std::function<std::vector<float>(std::string_view layer)> multiplier;  // of what could not be folded
  quantize::SourceRecord source;
  bool quantize_t5 = true;
};
/// Writes the folder and prints a table of sizes, part by part.
Status write_quantized(const QuantizedWriting& what, const std::filesystem::path& out, const FolderExtras& extras);

}  // namespace octavo::app
