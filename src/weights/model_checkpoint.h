// ModelCheckpoint: a whole model on disk, whatever the layout: a diffusers folder, one file, a folder of files, and
// what flags add from elsewhere. Says what it took for what, and why.
#pragma once

#include <concepts>
#include <map>
#include <optional>
#include <set>

#include "weights/checkpoint.h"
#include "weights/identify.h"
#include "weights/layouts/name_map.h"
#include "weights/synthesis/family.h"

namespace octavo::weights {

enum class Family { kUnknown, kLarge, kLargeTurbo, kMedium };

/// "large", "large-turbo", "medium", or "" for kUnknown.
std::string_view family_word(Family family);
/// The words of --family; "" and "auto" are kUnknown. kInvalidArgument lists the words.
Result<Family> parse_family(const std::string& word);

/// Where a model's files are, as flags say it.
struct ModelFiles {
  ModelFiles() = default;
  /// A path alone is a model.
  template <typename Source>
  // NOLINTNEXTLINE: implicit by design
  requires std::convertible_to<const Source&, std::filesystem::path> ModelFiles(const Source& path) : model(path) {}

  std::filesystem::path model;                    // folder or file; with `synthetic` its name alone
  std::filesystem::path clip_l, clip_g, t5, vae;  // file, or folder of one part; empty = in `model`
  std::filesystem::path tokenizers;               // folder with tokenizer/, tokenizer_2/, tokenizer_3/
  bool without_t5 = false;                        // zeros stand for T5, as in diffusers
  Family family = Family::kUnknown;               // Large and Large Turbo have the same shapes
  /// A model of these sizes is made up in memory instead of opened (synthesis/pooled_model.h); `tokenizers` is needed.
  std::optional<ModelSizes> synthetic;
  int t5_length = 0;  // T5 tokens at most, where the tokenizers are another model's; 0 = as the tokenizer says
};

class ModelCheckpoint {
 public:
  /// Opens (maps) every file and compares what headers tell: each part is there once, is what its flag says, and fits
  /// the others. Errors are one line that names the file and says what to do, often which flag to give.
  static Result<ModelCheckpoint> open(const ModelFiles& files);

  /// False for T5 alone: every other part is there, or open() has failed.
  bool has_part(Part part) const { return parts_.contains(part); }
  /// Tensors under canonical names; config.json, or what shapes tell.
  Result<CheckpointPart> open_part(Part part) const;
  /// "tokenizer", "tokenizer_2" or "tokenizer_3". kNotFound says how to give the folder.
  Result<std::filesystem::path> tokenizer_folder(const std::string& name) const;
  /// scheduler/scheduler_config.json of a diffusers folder; nothing for other layouts, which have the model's own
  /// shift.
  Result<std::optional<boost::json::object>> scheduler_config() const;

  /// 0, or what the files' flags say instead of the tokenizer.
  int t5_length() const { return given_.t5_length; }

  const std::string& name() const { return name_; }  // the folder's, or the file's without its ending
  Family family() const { return family_; }
  /// One line for the log: which model, told from what, and where each part comes from.
  const std::string& findings() const { return findings_; }
  /// Whether a part's weights are random ones of `octavo checkpoint synth`.
  bool has_random_weights() const;

 private:
  /// Files of one part, and how its names lie in them.
  struct Place {
    std::vector<std::shared_ptr<const SafetensorsFile>> files;
    std::string prefix;
    Layout layout = Layout::kDiffusers;
    std::filesystem::path shown;   // what people call it: the file, or the part's folder
    std::filesystem::path config;  // config.json; empty = told from shapes
    std::string config_text = {};  // config.json itself, where there is no file
  };
  ModelCheckpoint() = default;
  Status take_diffusers_folder(const ModelFiles& files);
  Status take_synthetic(const ModelFiles& files);
  Status take_file(const std::filesystem::path& path, bool only_file);
  Status take_folder_of_files(const ModelFiles& files);
  Status take_flag(Part part, const std::filesystem::path& path);
  Status take_part(Part part, Place place);
  Status check_complete(const ModelFiles& files) const;
  Status check_fit();
  Result<WeightStore> open_store(Part part) const;

  ModelFiles given_;
  std::optional<DiffusersFolder> folder_;
  std::map<Part, Place> parts_;
  std::set<Part> from_flags_;
  std::string name_;
  Family family_ = Family::kUnknown;
  std::string findings_;
};

/// Opens one safetensors file; what is none is refused by name (.ckpt, .bin, .pt, .gguf) or by content.
Result<std::shared_ptr<const SafetensorsFile>> open_weights_file(const std::filesystem::path& path);

/// The part of which `kind` (IdentifiedPart) is; nothing for other kinds.
std::optional<Part> part_of_kind(std::string_view kind);

/// The layout that a part's names have.
Layout layout_of(Part part, const IdentifiedPart& identified);

}  // namespace octavo::weights
