#include "weights/lora/lora_names.h"

#include <algorithm>

namespace octavo::weights {
namespace {

constexpr std::string_view kWeight = ".weight";

std::string underscored(std::string name) {
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
}

int count_blocks(const SourcePart& part) {
  int blocks = 0;
  const auto has = [&part, &blocks] {
    const std::string name = fmt::format("transformer_blocks.{}.attn.to_q.weight", blocks);
    return std::any_of(part.tensors.begin(), part.tensors.end(),
                       [&name](const SourceTensor& tensor) { return tensor.name == name; });
  };
  while (has()) ++blocks;
  return blocks;
}

/// "text_encoder_2" is lora_te2_.
std::string_view kohya_encoder(Part part) {
  if (part == Part::kTextEncoder) return "lora_te1_";
  if (part == Part::kTextEncoder2) return "lora_te2_";
  return "lora_te3_";
}

}  // namespace

std::map<std::string, std::vector<LoraTarget>, std::less<>> lora_names(const std::vector<SourcePart>& parts) {
  std::map<std::string, std::vector<LoraTarget>, std::less<>> names;
  for (std::size_t index = 0; index < parts.size(); ++index) {
    const SourcePart& part = parts[index];
    if (part.part == Part::kVae) continue;
    const NameSizes sizes{.blocks = part.part == Part::kTransformer ? count_blocks(part) : 0};
    for (std::size_t i = 0; i < part.tensors.size(); ++i) {
      const SourceTensor& tensor = part.tensors[i];
      if (!tensor.name.ends_with(kWeight) || tensor.shape.rank() < 2 || tensor.shape.element_count() == 0) {
        continue;
      }
      const std::string layer = tensor.name.substr(0, tensor.name.size() - kWeight.size());
      const LoraTarget whole{.part = index, .tensor = i};
      if (part.part != Part::kTransformer) {
        names[std::string(names_of(part.part).folder) + "." + layer] = {whole};
        names[std::string(kohya_encoder(part.part)) + underscored(layer)] = {whole};
        continue;
      }
      for (const char* prefix : {"transformer.", "base_model.model.", ""}) names[prefix + layer] = {whole};
      for (const char* prefix : {"lora_transformer_", "lycoris_"}) names[prefix + underscored(layer)] = {whole};
      const auto place = placement_in_original(part.part, tensor.name, sizes);
      if (!place || !place->stored.ends_with(kWeight)) continue;
      const std::string original = place->stored.substr(0, place->stored.size() - kWeight.size());
      LoraTarget target = whole;
      target.slice = place->slice;
      target.slices = place->slice_count;
      target.swap_halves = place->swap_halves;
      for (const std::string& name : {"lora_unet_" + underscored(original), "diffusion_model." + original, original}) {
        auto& targets = names[name];
        // A name that both layouts share (context_embedder) stands for the layer as it is.
        if (target.slices == 1) targets.clear();
        targets.push_back(target);
      }
    }
  }
  for (auto& [name, targets] : names) {
    std::sort(targets.begin(), targets.end(), [](const auto& a, const auto& b) { return a.slice < b.slice; });
  }
  return names;
}

std::string foreign_model(std::string_view module) {
  const auto has = [module](std::string_view word) { return module.find(word) != std::string_view::npos; };
  if (has("double_blocks") || has("single_blocks") || has("single_transformer_blocks")) return "Flux";
  if (has("down_blocks") || has("up_blocks") || has("mid_block") || has("input_blocks") || has("output_blocks")) {
    return "Stable Diffusion 1, 2 or XL";
  }
  return {};
}

}  // namespace octavo::weights
