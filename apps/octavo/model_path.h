// Where the weights are: from flags, the environment, or the embedded model beside the binary.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <optional>
#include <string>

#include "base/status.h"
#include "weights/model_checkpoint.h"

namespace octavo::app {

/// What a person typed.
struct ModelFlags {
  std::string model, clip_l, clip_g, t5, vae, tokenizers, family, synthetic;
};

/// --model, --clip-l, --clip-g, --t5, --vae, --tokenizers, --family.
void add_model_flags(CLI::App& command, ModelFlags& flags);

/// --synthetic, for commands that may do without a file.
void add_synthetic_flag(CLI::App& command, ModelFlags& flags);

/// --precision, with --dtype as its older name; for pipeline::parse_load_options().
void add_precision_flag(CLI::App& command, std::string& precision);

/// The given path or, when it is empty, $OCTAVO_MODEL or the embedded model (models/octavo-tiny beside the executable,
/// or the source tree around a build folder). kNotFound lists the places tried.
Result<std::filesystem::path> find_model(const std::string& given);

/// The last component of a model's path, also of "folder/".
std::string name_of_model(const std::filesystem::path& model);

/// `relative` in the first folder around the program that has it: the source tree around a build folder, or
/// share/octavo. Nothing when none has.
std::optional<std::filesystem::path> find_near_program(const std::filesystem::path& relative);

/// Flags as the loader takes them: "--t5 none" does without T5.
Result<weights::ModelFiles> find_model_files(const ModelFlags& flags);

}  // namespace octavo::app
