#include "checkpoint_report.h"

#include <algorithm>
#include <boost/json.hpp>
#include <system_error>

#include "device/device.h"
#include "models/autoencoder_kl/decoder.h"
#include "models/autoencoder_kl/encoder.h"
#include "models/clip/clip_text_model.h"
#include "models/mmdit/mmdit.h"
#include "models/t5/t5_encoder.h"
#include "text/clip_tokenizer.h"
#include "text/t5_tokenizer.h"
#include "weights/checkpoint.h"
#include "weights/identify.h"
#include "weights/layouts/part_config.h"
#include "weights/model_checkpoint.h"
#include "weights/safetensors.h"

namespace octavo::app {
namespace {

namespace fs = std::filesystem;
using boost::json::object;
using weights::DiffusersFolder;

constexpr std::size_t kMostNamed = 4;  // tensors named in one line about values

std::string word_of(const object& config, const char* key) {
  const auto* value = config.if_contains(key);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

/// 0 when it is missing or no integer: what needs the number complains by itself.
std::int64_t number_of(const object& config, const char* key) {
  const auto* value = config.if_contains(key);
  return value != nullptr && value->is_int64() ? value->get_int64() : 0;
}

std::size_t length_of(const object& config, const char* key) {
  const auto* value = config.if_contains(key);
  return value != nullptr && value->is_array() ? value->get_array().size() : 0;
}

void add_tensors(PartReport& part, const weights::SafetensorsFile& file) {
  part.files.push_back(file.path().filename().string());
  for (const auto& [name, info] : file.tensors())
    part.tensors.push_back({name, info.dtype, info.shape, info.byte_count});
}

/// One line for all tensors of `names` (all of the file's when null) that hold NaN or infinity; "" when there is none.
std::string find_bad_values(const weights::SafetensorsFile& file, const std::vector<std::string>* names) {
  std::vector<std::string> bad;
  const auto look = [&](const std::string& name, const weights::TensorInfo& info) {
    const auto view = file.view(info);
    if (!view.ok()) return;  // a dtype without NaN, or one that the model's check has named
    if (const auto index = weights::first_not_finite(*view))
      bad.push_back(fmt::format("{} at element {}", name, *index));
  };
  file.prefetch();
  if (names == nullptr) {
    for (const auto& [name, info] : file.tensors()) look(name, info);
  } else {
    for (const std::string& name : *names) look(name, file.tensors().at(name));
  }
  if (bad.empty()) return {};
  std::string line = fmt::format("{}: NaN or infinity in {} tensor{}: ", file.path().filename().string(), bad.size(),
                                 bad.size() == 1 ? "" : "s");
  for (std::size_t i = 0; i < std::min(bad.size(), kMostNamed); ++i) line += (i > 0 ? ", " : "") + bad[i];
  if (bad.size() > kMostNamed) line += fmt::format(" and {} more", bad.size() - kMostNamed);
  return line;
}

/// Everything that is known of one diffusers folder while it is looked at.
class FolderInspector {
 public:
  FolderInspector(const DiffusersFolder& folder, bool read_values, CheckpointReport& report)
      : folder_(folder), read_values_(read_values), report_(report), device_(device::create_cpu_device(1)) {}

  void run() {
    const std::string pipeline = word_of(folder_.model_index(), "_class_name");
    if (pipeline != "StableDiffusion3Pipeline") {
      problem("model_index.json",
              fmt::format("the pipeline is '{}'; this engine draws with StableDiffusion3Pipeline alone", pipeline));
    }
    look_at_model<models::Mmdit, models::MmditConfig>("transformer", "SD3Transformer2DModel", true);
    look_at_model<models::AutoencoderDecoder, models::AutoencoderConfig>("vae", "AutoencoderKL", true);
    look_at_encoder();
    look_at_model<models::ClipTextModel, models::ClipConfig>("text_encoder", "CLIPTextModelWithProjection", true);
    look_at_model<models::ClipTextModel, models::ClipConfig>("text_encoder_2", "CLIPTextModelWithProjection", true);
    look_at_model<models::T5Encoder, models::T5Config>("text_encoder_3", "T5EncoderModel", false);
    look_at_tokenizer<text::ClipTokenizer>("tokenizer", "text_encoder", {"CLIPTokenizer", "CLIPTokenizerFast"});
    look_at_tokenizer<text::ClipTokenizer>("tokenizer_2", "text_encoder_2", {"CLIPTokenizer", "CLIPTokenizerFast"});
    look_at_tokenizer<text::T5Tokenizer>("tokenizer_3", "text_encoder_3", {"T5TokenizerFast", "T5Tokenizer"});
    look_at_scheduler();
    compare_parts();
  }

 private:
  void problem(const std::string& subject, const std::string& what) {
    report_.problems.push_back(subject + ": " + what);
  }
  void problem(const Status& status) { report_.problems.push_back(status.to_string()); }
  /// Messages name a file by its part and name: the folder is the report's title.
  std::string shortened(std::string text) const {
    const std::string root = folder_.root().string() + "/";
    for (std::size_t at = text.find(root); at != std::string::npos; at = text.find(root, at))
      text.erase(at, root.size());
    return text;
  }

  /// The class that model_index.json names; checks it. False when the part is left out.
  bool begin_part(PartReport& part, const std::string& name, std::initializer_list<std::string_view> classes,
                  bool needed) {
    part.name = name;
    if (!folder_.has_part(name)) {
      if (needed) {
        problem("model_index.json", "names no " + name);
      } else {
        report_.notes.push_back(name + " is left out");
      }
      return false;
    }
    const auto& entry = folder_.model_index().at(name).as_array();
    if (entry.size() > 1 && entry[1].is_string()) part.class_name = std::string(entry[1].get_string());
    if (std::find(classes.begin(), classes.end(), part.class_name) == classes.end()) {
      problem("model_index.json",
              fmt::format("{} is of class '{}', expected {}", name, part.class_name, *classes.begin()));
    }
    return true;
  }

  template <class Model, class Config>
  void look_at_model(const std::string& name, std::string_view class_name, bool needed) {
    PartReport report;
    if (!begin_part(report, name, {class_name}, needed)) return;
    look_at_quantization(report);
    auto part = folder_.open_part(name);
    if (!part.ok()) {
      problem(Status(part.status().code(), part.status().message(), shortened(part.status().subject())));
    } else {
      configs_[name] = part->config;
      for (const auto& file : part->weights.files()) add_tensors(report, *file);
      const auto files = part->weights.files();  // the loader takes the part away
      describe(report, part->config);
      part->weights.check_only();
      const auto loaded = Model::load(*device_, std::move(*part), DType::kF32);
      if (!loaded.ok()) report_.problems.push_back(shortened(loaded.status().to_string()));
      for (const auto& file : files) {
        if (!read_values_) break;
        if (const std::string line = find_bad_values(*file, nullptr); !line.empty()) problem(name, line);
      }
    }
    report_.parts.push_back(std::move(report));
  }

  /// Whether the part is in 8 bits, whole and of one run, and its report for people goes with it.
  void look_at_quantization(PartReport& part) {
    const auto files = weights::open_part_files(folder_.root() / part.name);
    if (!files.ok()) return;  // opening the part says why
    auto provenance = weights::read_provenance(*files);
    if (!provenance.ok()) {
      report_.problems.push_back(shortened(provenance.status().to_string()));
      return;
    }
    if (!*provenance) return;
    for (const auto& file : *files) {
      for (const auto& [name, info] : file->tensors()) {
        part.quantized_layers += name.ends_with(weights::kNewWeightScale) ? 1 : 0;
      }
    }
    part.quantization = std::move(**provenance);
    const std::string path = part.name + "/quantization.json";
    std::error_code error;
    if (!fs::exists(folder_.root() / path, error)) return;
    const auto told = folder_.read_json(path);
    if (!told.ok()) {
      report_.problems.push_back(shortened(told.status().to_string()));
      return;
    }
    object header = *told;
    header.erase("layers");
    if (header != boost::json::parse(weights::provenance_text(*part.quantization)).get_object()) {
      problem(path, "is of another quantisation than the weights beside it");
    }
  }

  /// The autoencoder's other half, which some files leave out.
  void look_at_encoder() {
    auto part = folder_.open_part("vae");
    if (!part.ok()) return;  // said already
    if (!models::AutoencoderEncoder::present(part->weights)) {
      report_.notes.push_back("vae has no encoder: pictures cannot be input");
      return;
    }
    part->weights.check_only();
    const auto loaded = models::AutoencoderEncoder::load(*device_, std::move(*part), DType::kF32);
    if (!loaded.ok()) report_.problems.push_back(shortened(loaded.status().to_string()));
  }

  void describe(PartReport& part, const object& c) {
    if (part.name == "transformer") {
      const std::int64_t heads = number_of(c, "num_attention_heads"), head = number_of(c, "attention_head_dim");
      const std::int64_t side = number_of(c, "pos_embed_max_size");
      const weights::MmditSizes sizes{number_of(c, "num_layers"), saturating_product(heads, head), side,
                                      static_cast<std::int64_t>(length_of(c, "dual_attention_layers")),
                                      word_of(c, "qk_norm") == "rms_norm"};
      report_.model = weights::released_name(sizes);
      part.description = fmt::format(
          "{} layers of {} heads of {}, {} x {} positions, text width {}, pooled width {}{}", sizes.layers, heads, head,
          side, side, number_of(c, "joint_attention_dim"), number_of(c, "pooled_projection_dim"),
          sizes.dual_layers > 0 ? fmt::format(", {} dual-attention layers", sizes.dual_layers) : "");
    } else if (part.name == "vae") {
      part.description = fmt::format("{} latent channels, {} levels", number_of(c, "latent_channels"),
                                     length_of(c, "block_out_channels"));
    } else if (part.name == "text_encoder_3") {
      part.description = fmt::format("{} layers, width {}, {} heads, {} tokens", number_of(c, "num_layers"),
                                     number_of(c, "d_model"), number_of(c, "num_heads"), number_of(c, "vocab_size"));
    } else {
      part.description =
          fmt::format("{} layers, width {}, {} heads, {} tokens, projection {}", number_of(c, "num_hidden_layers"),
                      number_of(c, "hidden_size"), number_of(c, "num_attention_heads"), number_of(c, "vocab_size"),
                      number_of(c, "projection_dim"));
    }
  }

  static std::int64_t saturating_product(std::int64_t a, std::int64_t b) {
    std::int64_t product = 0;
    return __builtin_mul_overflow(a, b, &product) ? 0 : product;
  }

  void list_files(PartReport& part) const {
    std::error_code error;
    for (fs::directory_iterator entry(folder_.root() / part.name, error), end; !error && entry != end;
         entry.increment(error)) {
      part.files.push_back(entry->path().filename().string());
    }
    std::sort(part.files.begin(), part.files.end());
  }

  template <class Tokenizer>
  void look_at_tokenizer(const std::string& name, const std::string& encoder,
                         std::initializer_list<std::string_view> classes) {
    PartReport part;
    if (!begin_part(part, name, classes, folder_.has_part(encoder))) return;
    list_files(part);
    const auto tokenizer = Tokenizer::load(folder_.root() / name);
    if (!tokenizer.ok()) {
      report_.problems.push_back(shortened(tokenizer.status().to_string()));
    } else {
      part.description =
          fmt::format("{} tokens, at most {} a prompt", tokenizer->vocabulary_size(), tokenizer->model_max_length());
      const auto config = configs_.find(encoder);
      const std::int64_t rows = config == configs_.end() ? 0 : number_of(config->second, "vocab_size");
      if (rows > 0 && static_cast<std::int64_t>(tokenizer->vocabulary_size()) > rows) {
        problem(name,
                fmt::format("{} tokens do not fit into {}'s table of {}", tokenizer->vocabulary_size(), encoder, rows));
      }
    }
    report_.parts.push_back(std::move(part));
  }

  void look_at_scheduler() {
    PartReport part;
    if (!begin_part(part, "scheduler", {"FlowMatchEulerDiscreteScheduler"}, true)) return;
    list_files(part);
    const auto config = folder_.read_json("scheduler/scheduler_config.json");
    if (!config.ok()) {
      report_.problems.push_back(shortened(config.status().to_string()));
    } else {
      const auto shift = weights::config_number(*config, "shift", "scheduler/scheduler_config.json");
      if (shift.ok()) {
        part.description = fmt::format("shift {}", *shift);
      } else {
        problem(shift.status());
      }
      const auto* dynamic = config->if_contains("use_dynamic_shifting");
      if (dynamic != nullptr && dynamic->is_bool() && dynamic->get_bool()) {
        problem("scheduler/scheduler_config.json",
                "use_dynamic_shifting is true; Stable Diffusion 3.5 has a static shift");
      }
    }
    report_.parts.push_back(std::move(part));
  }

  /// The sizes by which the parts must fit each other.
  void compare_parts() {
    const auto size = [this](const std::string& part, const char* key) {
      const auto found = configs_.find(part);
      return found == configs_.end() ? std::int64_t{0} : number_of(found->second, key);
    };
    const auto fit = [this](std::int64_t have, std::int64_t want, const std::string& what) {
      if (have > 0 && want > 0 && have != want)
        problem("parts do not fit", fmt::format(fmt::runtime(what), have, want));
    };
    fit(size("vae", "latent_channels"), size("transformer", "in_channels"),
        "vae makes {} latent channels, transformer takes {}");
    fit(size("text_encoder_3", "d_model"), size("transformer", "joint_attention_dim"),
        "text_encoder_3 is {} wide, transformer's joint_attention_dim is {}");
    const std::int64_t first = size("text_encoder", "projection_dim"),
                       second = size("text_encoder_2", "projection_dim");
    if (first > 0 && second > 0) {
      fit(first + second, size("transformer", "pooled_projection_dim"),
          "text_encoder and text_encoder_2 project to {} together, transformer's pooled_projection_dim is {}");
    }
  }

  const DiffusersFolder& folder_;
  const bool read_values_;
  CheckpointReport& report_;
  const std::unique_ptr<device::Device> device_;
  std::map<std::string, object> configs_;
};

/// The part's tensors against what its model requires, by names and shapes; what is wrong lands in the report.
void check_part(weights::Part part, const weights::IdentifiedPart& identified,
                const std::shared_ptr<const weights::SafetensorsFile>& file, CheckpointReport& report) {
  const std::string label = file->path().filename().string();
  const auto check = [&]() -> Status {
    OCTAVO_ASSIGN_OR_RETURN(auto sources,
                            weights::map_part(part, weights::layout_of(part, identified), identified.prefix, {file}));
    auto store = weights::WeightStore::open(label, {file}, std::move(sources));
    OCTAVO_ASSIGN_OR_RETURN(auto config, weights::config_from_shapes(part, store));
    if (part == weights::Part::kTextEncoder && !store.contains("text_projection.weight")) {
      report.notes.push_back(label + " holds no text_projection, which is an identity in CLIP-L");
      store.supply_identity("text_projection.weight", number_of(config, "hidden_size"));
    }
    store.check_only();
    const auto device = device::create_cpu_device(1);
    weights::CheckpointPart opened{label, std::move(config), std::move(store)};
    switch (part) {
      case weights::Part::kTransformer:
        return models::Mmdit::load(*device, std::move(opened), DType::kF32).status();
      case weights::Part::kVae:
        return models::AutoencoderDecoder::load(*device, std::move(opened), DType::kF32).status();
      case weights::Part::kTextEncoder:
      case weights::Part::kTextEncoder2:
        return models::ClipTextModel::load(*device, std::move(opened), DType::kF32).status();
      case weights::Part::kTextEncoder3:
        return models::T5Encoder::load(*device, std::move(opened), DType::kF32).status();
    }
    return {};
  };
  if (const Status status = check(); !status.ok()) report.problems.push_back(status.to_string());
}

/// "diffusion_pytorch_model-00001-of-00002.safetensors" holds a piece of a part.
bool is_shard(const fs::path& path) { return path.stem().string().find("-of-0") != std::string::npos; }

/// A file that is no part of a diffusers folder: described by its names and shapes.
void inspect_file(const fs::path& path, bool read_values, CheckpointReport& report) {
  const auto file = weights::open_weights_file(path);
  if (!file.ok()) {
    report.problems.push_back(file.status().to_string());
    return;
  }
  bool known = false;
  for (weights::IdentifiedPart& identified : weights::identify_parts((*file)->tensors())) {
    PartReport part;
    part.name = identified.prefix.empty() ? identified.kind : identified.kind + " (" + identified.prefix + "*)";
    part.description = identified.description;
    part.files.push_back(path.filename().string());
    for (const std::string& name : identified.names) {
      const weights::TensorInfo& info = (*file)->tensors().at(name);
      part.tensors.push_back({name, info.dtype, info.shape, info.byte_count});
    }
    known = known || identified.kind != "unknown";
    report.parts.push_back(std::move(part));
    const auto kind = weights::part_of_kind(identified.kind);
    if (kind) report.found.insert(*kind);
    if (kind && !is_shard(path)) check_part(*kind, identified, *file, report);
    if (!read_values) continue;
    if (const std::string line = find_bad_values(**file, &identified.names); !line.empty())
      report.problems.push_back(line);
  }
  if (!known) report.problems.push_back(path.filename().string() + ": nothing in it is a part that this version knows");
}

/// What has to be given beside files that hold a transformer, to draw with it.
void note_missing_parts(CheckpointReport& report) {
  if (!report.found.contains(weights::Part::kTransformer)) return;
  std::string flags;
  for (const weights::PartNames& row : weights::kParts) {
    if (report.found.contains(row.part)) continue;
    flags += fmt::format(" {} {}", row.flag, row.part == weights::Part::kTextEncoder3 ? "FILE|none" : "FILE");
  }
  report.notes.push_back("to draw with it, also give:" + flags + " --tokenizers DIR");
}

}  // namespace

std::int64_t PartReport::parameter_count() const {
  std::int64_t count = 0;
  for (const TensorReport& tensor : tensors) count += tensor.shape.element_count();
  return count;
}

std::size_t PartReport::byte_count() const {
  std::size_t count = 0;
  for (const TensorReport& tensor : tensors) count += tensor.byte_count;
  return count;
}

std::map<std::string, std::size_t> PartReport::tensors_by_dtype() const {
  std::map<std::string, std::size_t> counts;
  for (const TensorReport& tensor : tensors) ++counts[tensor.dtype];
  return counts;
}

Result<CheckpointReport> inspect_checkpoint(const fs::path& path, bool read_values) {
  CheckpointReport report;
  report.path = path;
  std::error_code error;
  if (!fs::exists(path, error)) return not_found(path.string(), "no such file or folder");
  if (fs::exists(path / "model_index.json", error)) {
    report.layout = "diffusers folder";
    OCTAVO_ASSIGN_OR_RETURN(const DiffusersFolder folder, DiffusersFolder::open(path));
    FolderInspector(folder, read_values, report).run();
    return report;
  }
  if (!fs::is_directory(path, error)) {
    report.layout = "safetensors file";
    const auto file = weights::open_weights_file(path);
    if (!file.ok()) return file.status();
    inspect_file(path, read_values, report);
  } else {
    report.layout = "folder of safetensors files";
    std::vector<fs::path> files;
    for (fs::directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error)) {
      if (entry->path().extension() == ".safetensors") files.push_back(entry->path());
    }
    if (files.empty()) {
      return not_found(path.string(),
                       "is no checkpoint: it holds neither model_index.json (a diffusers folder) nor a "
                       ".safetensors file");
    }
    std::sort(files.begin(), files.end());
    for (const fs::path& file : files) inspect_file(file, read_values, report);
  }
  note_missing_parts(report);
  return report;
}

}  // namespace octavo::app
