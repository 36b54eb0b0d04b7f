#include "model_path.h"

#include <cstdlib>
#include <vector>

#include "base/utf8.h"
#include "synthetic_model.h"

namespace octavo::app {

namespace {

/// Where what comes with the program may lie, nearest first.
std::vector<std::filesystem::path> places_around_program(const std::filesystem::path& relative) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path executable = fs::read_symlink("/proc/self/exe", error);
  std::vector<fs::path> places;
  fs::path folder = executable.parent_path();
  // build/<preset>/octavo and build/<preset>/apps/octavo/octavo both lie at most four levels below the source tree.
  for (int level = 0; level < 5 && !folder.empty(); ++level, folder = folder.parent_path()) {
    places.push_back(folder / relative);
    places.push_back(folder / "share/octavo" / relative);
    if (folder == folder.root_path()) break;
  }
  return places;
}

}  // namespace

Result<std::filesystem::path> find_model(const std::string& given) {
  namespace fs = std::filesystem;
  if (!given.empty()) return fs::path(given);
  if (const char* from_environment = std::getenv("OCTAVO_MODEL"); from_environment != nullptr && *from_environment) {
    return fs::path(from_environment);
  }
  std::error_code error;
  std::string tried;
  for (const fs::path& candidate : places_around_program("models/octavo-tiny")) {
    if (fs::exists(candidate / "model_index.json", error)) return candidate;
    tried += "\n  " + candidate.string();
  }
  return not_found("--model", "no model given and the embedded octavo-tiny was not found in any of:" + tried);
}

std::optional<std::filesystem::path> find_near_program(const std::filesystem::path& relative) {
  std::error_code error;
  for (const std::filesystem::path& candidate : places_around_program(relative)) {
    if (std::filesystem::exists(candidate, error)) return candidate;
  }
  return {};
}

std::string name_of_model(const std::filesystem::path& model) {
  const auto absolute = std::filesystem::weakly_canonical(model);
  return printable((absolute.has_filename() ? absolute : absolute.parent_path()).filename().string());
}

Result<weights::ModelFiles> find_model_files(const ModelFlags& flags) {
  weights::ModelFiles files;
  if (!flags.synthetic.empty()) {
    if (!flags.model.empty()) return invalid_argument("--synthetic", "stands for --model: give one of them");
    OCTAVO_ASSIGN_OR_RETURN(files, synthetic_files(flags.synthetic, flags.tokenizers));
  } else {
    OCTAVO_ASSIGN_OR_RETURN(files, find_model(flags.model));
    files.tokenizers = flags.tokenizers;
  }
  if (flags.synthetic.empty() || !flags.family.empty()) {
    OCTAVO_ASSIGN_OR_RETURN(files.family, weights::parse_family(flags.family));
  }
  files.clip_l = flags.clip_l;
  files.clip_g = flags.clip_g;
  files.without_t5 = flags.t5 == "none";
  if (!files.without_t5) files.t5 = flags.t5;
  files.vae = flags.vae;
  return files;
}

void add_model_flags(CLI::App& command, ModelFlags& flags) {
  command.add_option("-m,--model", flags.model,
                     "Diffusers folder, .safetensors file or folder of such files (default: the embedded octavo-tiny)");
  command.add_option("--clip-l", flags.clip_l, "CLIP-L text encoder, if it is elsewhere: file or folder");
  command.add_option("--clip-g", flags.clip_g, "CLIP-G text encoder, if it is elsewhere");
  command.add_option("--t5", flags.t5, "T5-XXL text encoder, if it is elsewhere; none = do without");
  command.add_option("--vae", flags.vae, "Autoencoder, if it is elsewhere");
  command.add_option("--tokenizers", flags.tokenizers,
                     "Folder with tokenizer/, tokenizer_2/ and tokenizer_3/ of a diffusers folder, for single files");
  command.add_option(
      "--family", flags.family,
      "auto, large, large-turbo or medium: Large and Large Turbo have the same shapes (default: auto, by "
      "shapes and name)");
}

void add_synthetic_flag(CLI::App& command, ModelFlags& flags) {
  command.add_option("--synthetic", flags.synthetic,
                     "large, large-turbo, medium or tiny instead of a model: random weights of that size, made up in "
                     "memory with the embedded model's tokenizers; what it draws is noise, what it takes is not");
}

void add_precision_flag(CLI::App& command, std::string& precision) {
  command
      .add_option("--precision,--dtype", precision,
                  "Arithmetic: auto, f32, bf16, fp8 (the transformer quantised at load, W8A8) or w8a16 (its weights "
                  "alone); auto takes a quantised model as it is, f32 and bf16 widen it")
      ->capture_default_str();
}

}  // namespace octavo::app
