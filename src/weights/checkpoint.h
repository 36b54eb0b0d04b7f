// The diffusers folder layout: parts with a config.json each. ModelCheckpoint reads it and every other layout.
#pragma once

#include <boost/json/object.hpp>
#include <filesystem>
#include <optional>

#include "weights/weight_store.h"

namespace octavo::weights {

/// One part of the folder: its config.json and its tensors, sharded or not.
struct CheckpointPart {
  std::string name;            // "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"
  boost::json::object config;  // config.json
  WeightStore weights;
};

/// A diffusers folder: model_index.json and what it names. Opens lazily: reading a part maps its files.
class DiffusersFolder {
 public:
  /// kNotFound naming the file that is missing, kDataCorruption naming the file that is not what it should be.
  static Result<DiffusersFolder> open(const std::filesystem::path& root);

  const std::filesystem::path& root() const { return root_; }
  const boost::json::object& model_index() const { return model_index_; }
  bool has_part(const std::string& name) const;  // named in model_index.json and not [null, null]
  /// Prefers <stem>.safetensors, then the sharded index, then the .fp16 variants.
  Result<CheckpointPart> open_part(const std::string& name) const;
  /// Any JSON file of the folder ("scheduler/scheduler_config.json").
  Result<boost::json::object> read_json(const std::string& relative_path) const;

 private:
  DiffusersFolder() = default;
  std::filesystem::path root_;
  boost::json::object model_index_;
};

/// A JSON object in a file of at most 64 MiB.
Result<boost::json::object> read_json_file(const std::filesystem::path& path);

/// The safetensors files of a part's folder: single or sharded, with the stems of diffusers and of transformers;
/// prefers the plain file, then the sharded index, then the .fp16 variants.
Result<std::vector<std::shared_ptr<const SafetensorsFile>>> open_part_files(const std::filesystem::path& folder);

/// Typed reads from a config object; errors name `file` and the key.
Result<std::int64_t> config_int(const boost::json::object& config, const std::string& key, const std::string& file);
Result<double> config_number(const boost::json::object& config, const std::string& key, const std::string& file);
Result<std::string> config_string(const boost::json::object& config, const std::string& key, const std::string& file);

}  // namespace octavo::weights
