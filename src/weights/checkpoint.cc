#include "weights/checkpoint.h"

#include <boost/json.hpp>
#include <fstream>
#include <set>

#include "weights/safetensors.h"

namespace octavo::weights {
namespace fs = std::filesystem;
namespace {

constexpr std::uintmax_t kMaxJsonBytes = 64 << 20;  // the index of a large sharded model has under 1 MB

/// A shard's name comes from a file: it may not leave its folder.
bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

Result<std::vector<std::shared_ptr<const SafetensorsFile>>> open_shards(const fs::path& index_path) {
  OCTAVO_ASSIGN_OR_RETURN(const auto index, read_json_file(index_path));
  const auto* map = index.if_contains("weight_map");
  if (map == nullptr || !map->is_object()) return data_corruption(index_path.string(), "has no weight_map object");
  std::set<std::string> names;
  for (const auto& member : map->get_object()) {
    if (!member.value().is_string()) {
      return data_corruption(index_path.string(), "weight_map " + std::string(member.key()) + " is not a string");
    }
    std::string name(member.value().get_string());
    if (!is_plain_file_name(name)) return data_corruption(index_path.string(), "shard name '" + name + "' is refused");
    names.insert(std::move(name));
  }
  if (names.empty()) return data_corruption(index_path.string(), "weight_map is empty");
  std::vector<std::shared_ptr<const SafetensorsFile>> files;
  std::size_t tensor_count = 0;
  for (const std::string& name : names) {
    const fs::path path = index_path.parent_path() / name;
    std::error_code error;
    if (!fs::exists(path, error)) {
      return not_found(path.string(),
                       "is not there, and " + index_path.filename().string() + " names it: download this shard too");
    }
    OCTAVO_ASSIGN_OR_RETURN(auto file, SafetensorsFile::open(path));
    for (const auto& [tensor, info] : file->tensors()) {
      const auto* shard = map->get_object().if_contains(tensor);
      if (shard == nullptr || shard->get_string() != name) {
        return data_corruption(file->path().string(),
                               "tensor " + tensor + " is not where " + index_path.filename().string() + " says");
      }
    }
    tensor_count += file->tensors().size();
    files.push_back(std::move(file));
  }
  if (tensor_count != map->get_object().size()) {
    for (const auto& member : map->get_object()) {
      bool found = false;
      for (const auto& file : files) found = found || file->tensors().contains(std::string_view(member.key()));
      if (!found) {
        return data_corruption(index_path.string(),
                               "tensor " + std::string(member.key()) + " is in none of the shards");
      }
    }
  }
  return files;
}

}  // namespace

Result<boost::json::object> read_json_file(const fs::path& path) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error) return not_found(path.string(), "no such file");
  if (size > kMaxJsonBytes) {
    return data_corruption(path.string(), fmt::format("{} bytes are too many for a configuration file", size));
  }
  std::ifstream file(path, std::ios::binary);
  std::string text(static_cast<std::size_t>(size), '\0');
  if (!file.read(text.data(), static_cast<std::streamsize>(size))) {
    return failed_precondition(path.string(), "cannot be read");
  }
  boost::json::parse_options options;
  options.max_depth = 32;
  boost::system::error_code problem;
  auto value = boost::json::parse(text, problem, {}, options);
  if (problem) return data_corruption(path.string(), "is not valid JSON: " + problem.message());
  if (!value.is_object()) return data_corruption(path.string(), "is not a JSON object");
  return std::move(value.get_object());
}

Result<std::vector<std::shared_ptr<const SafetensorsFile>>> open_part_files(const fs::path& folder) {
  std::error_code error;
  // Text encoders are saved by transformers under another stem than the diffusers parts; fp16 variants last.
  for (const char* variant : {"", ".fp16"}) {
    for (const std::string stem : {"diffusion_pytorch_model", "model"}) {
      const fs::path single = folder / (stem + variant + ".safetensors");
      if (fs::exists(single, error)) {
        OCTAVO_ASSIGN_OR_RETURN(auto file, SafetensorsFile::open(single));
        return std::vector<std::shared_ptr<const SafetensorsFile>>{std::move(file)};
      }
      for (const fs::path& index : {folder / (stem + ".safetensors.index" + variant + ".json"),
                                    folder / (stem + variant + ".safetensors.index.json")}) {
        if (fs::exists(index, error)) return open_shards(index);
      }
    }
  }
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const auto extension = entry.path().extension();
    if (extension == ".bin" || extension == ".ckpt" || extension == ".pt") {
      return not_found(entry.path().string(),
                       "is a PyTorch pickle, which can run code when loaded and is refused; "
                       "convert it to safetensors");
    }
  }
  return not_found(folder.string(),
                   "holds no diffusion_pytorch_model.safetensors or model.safetensors, sharded or not");
}

Result<DiffusersFolder> DiffusersFolder::open(const fs::path& root) {
  std::error_code error;
  if (!fs::exists(root, error)) return not_found(root.string(), "no such file or folder");
  if (!fs::is_directory(root, error)) {
    return invalid_argument(root.string(), "is not a folder with model_index.json, transformer/, vae/, ...");
  }
  DiffusersFolder folder;
  folder.root_ = root;
  OCTAVO_ASSIGN_OR_RETURN(folder.model_index_, read_json_file(root / "model_index.json"));
  return folder;
}

bool DiffusersFolder::has_part(const std::string& name) const {
  const auto* entry = model_index_.if_contains(name);
  if (entry == nullptr || !entry->is_array() || entry->get_array().empty()) return false;
  return !entry->get_array()[0].is_null();
}

Result<CheckpointPart> DiffusersFolder::open_part(const std::string& name) const {
  const fs::path folder = root_ / name;
  std::error_code error;
  if (!fs::is_directory(folder, error)) return not_found(folder.string(), "no such folder");
  OCTAVO_ASSIGN_OR_RETURN(auto config, read_json_file(folder / "config.json"));
  OCTAVO_ASSIGN_OR_RETURN(auto files, open_part_files(folder));
  const auto part = part_of_folder(name);
  if (!part) return invalid_argument(folder.string(), "is no part with weights");
  OCTAVO_ASSIGN_OR_RETURN(PartSources sources, map_part(*part, Layout::kDiffusers, "", files));
  return CheckpointPart{name, std::move(config),
                        WeightStore::open((root_ / name).string(), std::move(files), std::move(sources))};
}

Result<boost::json::object> DiffusersFolder::read_json(const std::string& relative_path) const {
  return read_json_file(root_ / relative_path);
}

Result<std::int64_t> config_int(const boost::json::object& config, const std::string& key, const std::string& file) {
  const auto* value = config.if_contains(key);
  if (value == nullptr) return data_corruption(file, "has no " + key);
  if (!value->is_int64()) return data_corruption(file, key + " is not an integer");
  return value->get_int64();
}

Result<double> config_number(const boost::json::object& config, const std::string& key, const std::string& file) {
  const auto* value = config.if_contains(key);
  if (value == nullptr) return data_corruption(file, "has no " + key);
  if (!value->is_number()) return data_corruption(file, key + " is not a number");
  return value->to_number<double>();
}

Result<std::string> config_string(const boost::json::object& config, const std::string& key, const std::string& file) {
  const auto* value = config.if_contains(key);
  if (value == nullptr) return data_corruption(file, "has no " + key);
  if (!value->is_string()) return data_corruption(file, key + " is not a string");
  return std::string(value->get_string());
}

}  // namespace octavo::weights
