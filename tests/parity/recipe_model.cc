#include "tests/parity/recipe_model.h"

#include <unistd.h>

#include <boost/json.hpp>
#include <fstream>

#include "tests/parity/fixture.h"
#include "weights/safetensors.h"

namespace octavo::parity {
namespace fs = std::filesystem;
namespace {

std::uint64_t fnv1a(std::string_view text) {
  std::uint64_t value = 0xCBF29CE484222325ull;
  for (const char c : text) value = (value ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
  return value;
}

/// Element `index` of the recipe's stream: 24 bits of splitmix64 as a number in [-1, 1).
float recipe_value(std::uint64_t seed, std::uint64_t index) {
  std::uint64_t z = seed + (index + 1) * 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  z ^= z >> 31;
  return static_cast<float>(z >> 40) * 0x1p-23f - 1.0f;
}

/// What model_index.json calls a part's class.
const char* class_of(std::string_view part) {
  if (part == "transformer") return "SD3Transformer2DModel";
  if (part == "vae") return "AutoencoderKL";
  return part == "text_encoder_3" ? "T5EncoderModel" : "CLIPTextModelWithProjection";
}

void write_text(const fs::path& path, const std::string& text) { std::ofstream(path) << text; }

}  // namespace

RecipeModel::RecipeModel(const std::string& fixture_name) {
  std::string pattern = (fs::temp_directory_path() / "octavo-recipe-XXXXXX").string();
  OCTAVO_CHECK(mkdtemp(pattern.data()) != nullptr, "no temporary folder");
  root_ = pattern;
  const auto metadata = boost::json::parse(Fixture(fixture_name).metadata("model")).get_object();
  const DType dtype = metadata.at("dtype").as_string() == "F16" ? DType::kF16 : DType::kBF16;
  boost::json::object index{{"_class_name", "StableDiffusion3Pipeline"}};
  for (const auto& [name, part] : metadata.at("parts").as_object()) {
    index[name] = {"library", class_of(name)};
    const fs::path folder = root_ / std::string(name);
    fs::create_directory(folder);
    write_text(folder / "config.json", boost::json::serialize(part.at("config")));
    std::vector<std::vector<std::uint16_t>> values;
    std::vector<weights::NamedTensor> tensors;
    for (const auto& [tensor, recipe] : part.at("tensors").as_object()) {
      Shape shape;
      for (const auto& extent : recipe.at(0).as_array()) shape.append(extent.to_number<std::int64_t>());
      const auto offset = static_cast<float>(recipe.at(1).to_number<double>());
      const auto spread = static_cast<float>(recipe.at(2).to_number<double>());
      const std::uint64_t seed = fnv1a(tensor);
      auto& bits = values.emplace_back(static_cast<std::size_t>(shape.element_count()));
      for (std::size_t i = 0; i < bits.size(); ++i) {
        const float value = offset + spread * recipe_value(seed, i);
        bits[i] = dtype == DType::kF16 ? to_float16(value).bits : to_bfloat16(value).bits;
      }
      tensors.push_back({std::string(tensor), TensorView(static_cast<void*>(bits.data()), dtype, shape)});
    }
    const char* stem = name == "vae" || name == "transformer" ? "diffusion_pytorch_model" : "model";
    const Status written = weights::write_safetensors(folder / (std::string(stem) + ".safetensors"), tensors);
    OCTAVO_CHECK(written.ok(), "{}", written.to_string());
  }
  write_text(root_ / "model_index.json", boost::json::serialize(index));
}

RecipeModel::~RecipeModel() {
  std::error_code error;
  fs::remove_all(root_, error);
}

void RecipeModel::add_tokenizers_and_scheduler() const {
  for (const char* name : {"tokenizer", "tokenizer_2", "tokenizer_3"}) {
    fs::copy(fs::path(OCTAVO_SOURCE_DIR) / "models/octavo-tiny" / name, root_ / name);
  }
  fs::create_directory(root_ / "scheduler");
  write_text(root_ / "scheduler/scheduler_config.json",
             R"({"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0})");
}

bool RecipeModel::has_part(const std::string& name) const { return fs::exists(root_ / name); }

weights::CheckpointPart RecipeModel::part(const std::string& name) const {
  return weights::DiffusersFolder::open(root_).value().open_part(name).value();
}

}  // namespace octavo::parity
