#include "weights/model_checkpoint.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cctype>

#include "weights/layouts/part_config.h"
#include "weights/synthesis/pooled_model.h"

namespace octavo::weights {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kMostListed = 4;

std::string lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

/// The last component, also of "folder/".
std::string last_name(const fs::path& path) {
  const fs::path absolute = fs::weakly_canonical(path);
  return (absolute.has_filename() ? absolute : absolute.parent_path()).filename().string();
}

/// Names that some files carry and no model of this engine uses.
bool is_harmless(std::string_view name) {
  return name.ends_with(".logit_scale") || name.ends_with(".position_ids") || name == "logit_scale";
}

std::string list(const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), kMostListed); ++i) text += (i > 0 ? ", " : "") + names[i];
  if (names.size() > kMostListed) text += fmt::format(" and {} more", names.size() - kMostListed);
  return text;
}

std::vector<fs::path> safetensors_in(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    if (entry->path().extension() == ".safetensors") found.push_back(entry->path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::string dtypes_of(const WeightStore& store) {
  std::map<std::string, std::size_t> counts;
  for (const std::string& name : store.names()) ++counts[store.stored_dtype(name)];
  std::string text;
  for (const auto& [dtype, count] : counts) text += (text.empty() ? "" : " and ") + dtype;
  return text;
}

}  // namespace

std::string_view family_word(Family family) {
  switch (family) {
    case Family::kLarge:
      return "large";
    case Family::kLargeTurbo:
      return "large-turbo";
    case Family::kMedium:
      return "medium";
    case Family::kUnknown:
      break;
  }
  return "";
}

Result<Family> parse_family(const std::string& word) {
  if (word.empty() || word == "auto") return Family::kUnknown;
  for (const Family family : {Family::kLarge, Family::kLargeTurbo, Family::kMedium}) {
    if (word == family_word(family)) return family;
  }
  return invalid_argument("--family", "must be auto, large, large-turbo or medium, not '" + word + "'");
}

std::optional<Part> part_of_kind(std::string_view kind) {
  if (kind == "transformer") return Part::kTransformer;
  if (kind == "vae") return Part::kVae;
  if (kind == "clip_l") return Part::kTextEncoder;
  if (kind == "clip_g") return Part::kTextEncoder2;
  if (kind == "t5") return Part::kTextEncoder3;
  return std::nullopt;
}

Layout layout_of(Part part, const IdentifiedPart& identified) {
  const bool own_names = part == Part::kTransformer || part == Part::kVae;
  return own_names && identified.original ? Layout::kOriginal : Layout::kDiffusers;
}

Result<std::shared_ptr<const SafetensorsFile>> open_weights_file(const fs::path& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) return invalid_argument(path.string(), "is a folder, a file is needed");
  auto file = SafetensorsFile::open(path);
  if (file.ok() || file.status().code() == ErrorCode::kNotFound) return file;
  const std::string ending = lower_case(path.extension().string());
  const bool said = file.status().message().find("pickle") != std::string::npos ||
                    file.status().message().find("GGUF") != std::string::npos;
  if (!said && (ending == ".ckpt" || ending == ".pt" || ending == ".pth" || ending == ".bin")) {
    return data_corruption(path.string(),
                           "is a PyTorch pickle by its name, which can run code when loaded and is "
                           "refused; convert it to safetensors");
  }
  if (!said && ending == ".gguf") {
    return data_corruption(path.string(), "is a GGUF file by its name; a safetensors file is needed");
  }
  return file;
}

Status ModelCheckpoint::take_part(Part part, Place place) {
  const auto found = parts_.find(part);
  if (found != parts_.end()) {
    return data_corruption(place.shown.string(),
                           fmt::format("holds a {} and so does {}; give the one to use with {}", names_of(part).title,
                                       found->second.shown.string(), names_of(part).flag));
  }
  parts_.emplace(part, std::move(place));
  return {};
}

Status ModelCheckpoint::take_diffusers_folder(const ModelFiles& files) {
  OCTAVO_ASSIGN_OR_RETURN(folder_, DiffusersFolder::open(files.model));
  const auto& index = folder_->model_index();
  const std::string subject = (files.model / "model_index.json").string();
  const auto* pipeline = index.if_contains("_class_name");
  const std::string name = pipeline != nullptr && pipeline->is_string() ? std::string(pipeline->get_string()) : "";
  if (!name.starts_with("StableDiffusion3")) {
    return invalid_argument(
        subject, "is a " + (name.empty() ? "pipeline without a name" : name) + ", expected a StableDiffusion3Pipeline");
  }
  for (const PartNames& row : kParts) {
    const std::string folder(row.folder);
    if (from_flags_.contains(row.part) || (row.part == Part::kTextEncoder3 && given_.without_t5)) continue;
    // T5 may be left out on purpose; the others may go unmentioned, but not lack.
    std::error_code error;
    const bool optional = row.part == Part::kTextEncoder3;
    if (!folder_->has_part(folder) && (optional || !fs::is_directory(files.model / folder, error))) continue;
    const std::string expected = row.part == Part::kTransformer    ? "SD3Transformer2DModel"
                                 : row.part == Part::kVae          ? "AutoencoderKL"
                                 : row.part == Part::kTextEncoder3 ? "T5EncoderModel"
                                                                   : "CLIPTextModelWithProjection";
    const auto* entry = index.if_contains(folder);
    const bool named = entry != nullptr && entry->is_array() && entry->get_array().size() == 2;
    if (named && entry->get_array()[1].is_string() && entry->get_array()[1].get_string() != expected) {
      return invalid_argument(subject, fmt::format("{} is a {}, expected a {}", folder,
                                                   std::string(entry->get_array()[1].get_string()), expected));
    }
    OCTAVO_ASSIGN_OR_RETURN(auto opened, open_part_files(files.model / folder));
    OCTAVO_RETURN_IF_ERROR(take_part(
        row.part,
        {.files = std::move(opened), .shown = files.model / folder, .config = files.model / folder / "config.json"}));
  }
  return {};
}

Status ModelCheckpoint::take_synthetic(const ModelFiles& files) {
  OCTAVO_ASSIGN_OR_RETURN(const auto made, make_pooled_model(files.model.string(), *files.synthetic, 0));
  for (const PooledPart& part : made) {
    if (from_flags_.contains(part.part) || (part.part == Part::kTextEncoder3 && files.without_t5)) continue;
    OCTAVO_RETURN_IF_ERROR(take_part(
        part.part, {.files = {part.file}, .shown = part.file->path(), .config = {}, .config_text = part.config}));
  }
  return {};
}

Status ModelCheckpoint::take_file(const fs::path& path, bool only_file) {
  OCTAVO_ASSIGN_OR_RETURN(const auto file, open_weights_file(path));
  std::vector<std::string> unknown;
  for (const IdentifiedPart& identified : identify_parts(file->tensors())) {
    const auto part = part_of_kind(identified.kind);
    if (!part) {
      for (const std::string& name : identified.names) {
        if (!is_harmless(name)) unknown.push_back(name);
      }
      // A file of another model is that model, however little of it is known.
      if (only_file && identified.foreign) return invalid_argument(path.string(), identified.description);
      continue;
    }
    if (*part == Part::kTextEncoder3 && given_.without_t5) continue;
    // What a flag gives replaces what the model's own file holds.
    if (from_flags_.contains(*part)) continue;
    OCTAVO_RETURN_IF_ERROR(take_part(
        *part, {.files = {file}, .prefix = identified.prefix, .layout = layout_of(*part, identified), .shown = path}));
  }
  if (!only_file || unknown.empty()) return {};
  return data_corruption(path.string(), fmt::format("{} tensors are part of no Stable Diffusion 3.5 model: {}",
                                                    unknown.size(), list(unknown)));
}

Status ModelCheckpoint::take_folder_of_files(const ModelFiles& files) {
  const auto found = safetensors_in(files.model);
  if (found.empty()) {
    return not_found(files.model.string(),
                     "is no checkpoint: it holds neither model_index.json (a diffusers folder) "
                     "nor a .safetensors file");
  }
  for (const fs::path& path : found) OCTAVO_RETURN_IF_ERROR(take_file(path, false));
  return {};
}

Status ModelCheckpoint::take_flag(Part part, const fs::path& path) {
  const PartNames& row = names_of(part);
  const std::string flag(row.flag);
  std::error_code error;
  if (!fs::exists(path, error)) return not_found(flag, path.string() + ": no such file or folder");
  Place place{.shown = path};
  if (fs::is_directory(path, error)) {
    if (fs::exists(path / "model_index.json", error) && fs::is_directory(path / row.folder, error)) {
      place.shown = path / row.folder;  // a whole diffusers folder: its part
    }
    OCTAVO_ASSIGN_OR_RETURN(place.files, open_part_files(place.shown));
    if (fs::exists(place.shown / "config.json", error)) place.config = place.shown / "config.json";
  } else {
    OCTAVO_ASSIGN_OR_RETURN(auto file, open_weights_file(path));
    place.files.push_back(std::move(file));
  }
  TensorMap tensors;
  for (const auto& file : place.files) tensors.insert(file->tensors().begin(), file->tensors().end());
  std::string found;
  for (const IdentifiedPart& identified : identify_parts(tensors)) {
    const auto kind = part_of_kind(identified.kind);
    // Reduced encoders have too few layers to be told apart by name: CLIP is then what the flag says.
    const bool clip = (kind == Part::kTextEncoder || kind == Part::kTextEncoder2) &&
                      (part == Part::kTextEncoder || part == Part::kTextEncoder2) && !identified.released &&
                      identified.prefix.empty();
    if (kind == part || clip) {
      place.prefix = identified.prefix;
      place.layout = layout_of(part, identified);
      return take_part(part, std::move(place));
    }
    if (identified.kind != "unknown" || found.empty()) found = identified.description;
  }
  return invalid_argument(flag, fmt::format("{} holds no {}, but: {}", path.string(), row.title, found));
}

Status ModelCheckpoint::check_complete(const ModelFiles& files) const {
  for (const PartNames& row : kParts) {
    if (parts_.contains(row.part) || (row.part == Part::kTextEncoder3 && (files.without_t5 || folder_))) continue;
    if (row.part == Part::kTransformer) {
      std::string found;
      for (const auto& [part, place] : parts_) found += (found.empty() ? "" : ", ") + std::string(names_of(part).title);
      return not_found("--model", fmt::format("{} holds no Stable Diffusion 3.5 transformer{}", files.model.string(),
                                              found.empty() ? "" : " (only: " + found + ")"));
    }
    const std::string also = row.part == Part::kTextEncoder3 ? ", or --t5 none to draw without it" : "";
    return not_found(std::string(row.flag), fmt::format("{} holds no {}: give it with {} FILE{}", files.model.string(),
                                                        row.title, row.flag, also));
  }
  return {};
}

Result<WeightStore> ModelCheckpoint::open_store(Part part) const {
  const Place& place = parts_.at(part);
  OCTAVO_ASSIGN_OR_RETURN(PartSources sources, map_part(part, place.layout, place.prefix, place.files));
  const std::string label =
      place.config.empty() ? fmt::format("{} ({})", place.shown.string(), names_of(part).title) : place.shown.string();
  return WeightStore::open(label, place.files, std::move(sources));
}

Result<CheckpointPart> ModelCheckpoint::open_part(Part part) const {
  const Place& place = parts_.at(part);
  OCTAVO_ASSIGN_OR_RETURN(WeightStore store, open_store(part));
  boost::json::object config;
  if (!place.config_text.empty()) {
    config = boost::json::parse(place.config_text).as_object();  // our own
  } else if (place.config.empty()) {
    OCTAVO_ASSIGN_OR_RETURN(config, config_from_shapes(part, store));
  } else {
    OCTAVO_ASSIGN_OR_RETURN(config, read_json_file(place.config));
  }
  // Separate clip_l files leave the projection out, because CLIP-L's is the identity.
  if (part == Part::kTextEncoder && !store.contains("text_projection.weight")) {
    const Shape* table = store.shape_of("text_model.embeddings.token_embedding.weight");
    if (table != nullptr && table->rank() == 2) store.supply_identity("text_projection.weight", (*table)[1]);
  }
  return CheckpointPart{std::string(names_of(part).folder), std::move(config), std::move(store)};
}

Status ModelCheckpoint::check_fit() {
  std::map<Part, boost::json::object> configs;
  std::map<Part, std::string> stored_as;
  for (const auto& [part, place] : parts_) {
    OCTAVO_ASSIGN_OR_RETURN(CheckpointPart opened, open_part(part));
    stored_as[part] = dtypes_of(opened.weights);
    if (!opened.weights.quantization().empty()) stored_as[part] += ", " + opened.weights.quantization();
    configs[part] = std::move(opened.config);
  }
  const auto number = [&configs](Part part, const char* key) {
    const auto* value = configs.contains(part) ? configs[part].if_contains(key) : nullptr;
    return value != nullptr && value->is_int64() ? value->get_int64() : 0;
  };
  const auto differ = [](std::int64_t a, std::int64_t b) { return a > 0 && b > 0 && a != b; };
  const auto shown = [this](Part part) { return parts_.at(part).shown.string(); };
  const std::int64_t context = number(Part::kTransformer, "joint_attention_dim");
  if (differ(number(Part::kVae, "latent_channels"), number(Part::kTransformer, "in_channels"))) {
    return data_corruption(
        shown(Part::kVae),
        fmt::format("is an autoencoder of {} latent channels, the transformer takes {}: give the "
                    "model's own with --vae",
                    number(Part::kVae, "latent_channels"), number(Part::kTransformer, "in_channels")));
  }
  if (differ(number(Part::kTextEncoder3, "d_model"), context)) {
    return data_corruption(shown(Part::kTextEncoder3),
                           fmt::format("is a text encoder of width {}, the transformer takes {}: give T5-XXL with --t5",
                                       number(Part::kTextEncoder3, "d_model"), context));
  }
  const std::int64_t pooled =
      number(Part::kTextEncoder, "projection_dim") + number(Part::kTextEncoder2, "projection_dim");
  if (differ(pooled, number(Part::kTransformer, "pooled_projection_dim"))) {
    return data_corruption(
        shown(Part::kTextEncoder),
        fmt::format(
            "projects to {} and {} to {}, the transformer takes {} together: give the model's own with --clip-l "
            "and --clip-g",
            number(Part::kTextEncoder, "projection_dim"), shown(Part::kTextEncoder2),
            number(Part::kTextEncoder2, "projection_dim"), number(Part::kTransformer, "pooled_projection_dim")));
  }

  // Which model it is.
  const auto* dual = configs[Part::kTransformer].if_contains("dual_attention_layers");
  const auto* norm = configs[Part::kTransformer].if_contains("qk_norm");
  const MmditSizes sizes{
      .layers = number(Part::kTransformer, "num_layers"),
      .width = number(Part::kTransformer, "num_attention_heads") * number(Part::kTransformer, "attention_head_dim"),
      .position_side = number(Part::kTransformer, "pos_embed_max_size"),
      .dual_layers =
          dual != nullptr && dual->is_array() ? static_cast<std::int64_t>(dual->get_array().size()) : std::int64_t{0},
      .qk_norm = norm != nullptr && norm->is_string()};
  const std::string words =
      fmt::format("{} blocks of width {}, {} x {} positions, {} dual-attention blocks", sizes.layers, sizes.width,
                  sizes.position_side, sizes.position_side, sizes.dual_layers);
  const std::string released = released_name(sizes);
  const bool large = sizes == kLargeSizes, medium = sizes == kMediumSizes;
  if ((large && given_.family == Family::kMedium) ||
      (medium && (given_.family == Family::kLarge || given_.family == Family::kLargeTurbo))) {
    return invalid_argument("--family",
                            fmt::format("{} does not fit {}: {}, the shapes of {}", family_word(given_.family),
                                        shown(Part::kTransformer), words, released));
  }
  const std::string file_name = lower_case(last_name(shown(Part::kTransformer)) + " " + name_);
  const bool turbo_name = file_name.find("turbo") != std::string::npos;
  std::string why;
  if (given_.family != Family::kUnknown) {
    family_ = given_.family;
    why = "--family says so";
  } else if (medium) {
    family_ = Family::kMedium;
    why = "by its shapes";
  } else if (turbo_name && sizes.dual_layers == 0 && (large || released.empty())) {
    family_ = Family::kLargeTurbo;
    why = fmt::format("'turbo' is in the name; --family large if that is wrong");
  } else if (large) {
    family_ = Family::kLarge;
    why = "by its shapes, which Large Turbo has too; no 'turbo' is in the name, --family large-turbo if it is one";
  } else {
    why = "by its shapes";
  }
  const std::string title = family_ == Family::kLargeTurbo && (large || released.empty())
                                ? "Stable Diffusion 3.5 Large Turbo"
                            : family_ == Family::kLarge && large ? "Stable Diffusion 3.5 Large"
                            : released.empty()                   ? "a model of no released size"
                                                                 : released;
  findings_ = fmt::format("detected {} ({}): {}", title, why, words);
  for (const PartNames& row : kParts) {
    const auto found = parts_.find(row.part);
    findings_ += "; " + std::string(row.folder) + ": ";
    if (found == parts_.end()) {
      findings_ += "none, zeros stand for it";
      continue;
    }
    const Place& place = found->second;
    findings_ += fmt::format("{} ({} names{}, {})", place.shown.string(),
                             place.layout == Layout::kOriginal ? "original" : "diffusers",
                             place.prefix.empty() ? "" : " behind " + place.prefix, stored_as[row.part]);
  }
  return {};
}

bool ModelCheckpoint::has_random_weights() const {
  for (const auto& [part, place] : parts_) {
    for (const auto& file : place.files) {
      if (file->metadata().contains(kSynthesisedMetadata)) return true;
    }
  }
  return false;
}

Result<ModelCheckpoint> ModelCheckpoint::open(const ModelFiles& files) {
  ModelCheckpoint checkpoint;
  checkpoint.given_ = files;
  std::error_code error;
  if (!files.synthetic && !fs::exists(files.model, error))
    return not_found(files.model.string(), "no such file or folder");
  if (files.without_t5 && !files.t5.empty()) return invalid_argument("--t5", "is both a file and none");
  const bool folder = fs::is_directory(files.model, error);
  checkpoint.name_ = folder ? last_name(files.model) : files.model.stem().string();
  for (const auto& [part, path] :
       {std::pair(Part::kTextEncoder, &files.clip_l), std::pair(Part::kTextEncoder2, &files.clip_g),
        std::pair(Part::kTextEncoder3, &files.t5), std::pair(Part::kVae, &files.vae)}) {
    if (path->empty()) continue;
    OCTAVO_RETURN_IF_ERROR(checkpoint.take_flag(part, *path));
    checkpoint.from_flags_.insert(part);
  }
  if (files.synthetic) {
    checkpoint.name_ = files.model.string();
    OCTAVO_RETURN_IF_ERROR(checkpoint.take_synthetic(files));
  } else if (folder && fs::exists(files.model / "model_index.json", error)) {
    OCTAVO_RETURN_IF_ERROR(checkpoint.take_diffusers_folder(files));
  } else if (folder) {
    OCTAVO_RETURN_IF_ERROR(checkpoint.take_folder_of_files(files));
  } else {
    OCTAVO_RETURN_IF_ERROR(checkpoint.take_file(files.model, true));
  }
  OCTAVO_RETURN_IF_ERROR(checkpoint.check_complete(files));
  OCTAVO_RETURN_IF_ERROR(checkpoint.check_fit());
  return checkpoint;
}

Result<fs::path> ModelCheckpoint::tokenizer_folder(const std::string& name) const {
  std::error_code error;
  fs::path root = given_.tokenizers;
  if (root.empty()) root = fs::is_directory(given_.model, error) ? given_.model : given_.model.parent_path();
  const fs::path folder = root / name;
  if (fs::is_directory(folder, error)) return folder;
  if (!given_.tokenizers.empty()) {
    return not_found("--tokenizers", folder.string() +
                                         ": no such folder (tokenizer/, tokenizer_2/ and tokenizer_3/ of "
                                         "a diffusers folder of Stable Diffusion 3.5 are needed)");
  }
  if (folder_) return not_found(folder.string(), "no such folder");
  return not_found("--tokenizers", fmt::format("{} holds no tokenizers: give the folder that holds tokenizer/, "
                                               "tokenizer_2/ and tokenizer_3/, as every diffusers folder of Stable "
                                               "Diffusion 3.5 does",
                                               given_.model.string()));
}

Result<std::optional<boost::json::object>> ModelCheckpoint::scheduler_config() const {
  if (!folder_) return std::optional<boost::json::object>();
  OCTAVO_ASSIGN_OR_RETURN(auto config, folder_->read_json("scheduler/scheduler_config.json"));
  return std::optional(std::move(config));
}

}  // namespace octavo::weights
