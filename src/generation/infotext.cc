#include "generation/infotext.h"

#include <array>
#include <utility>

namespace octavo::generation {
namespace {

// A1111's spelling of the names in sampling's tables: clients parse it.
constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kDisplayNames = {{
    {"euler", "Euler"},
    {"normal", "Normal"},
    {"sgm_uniform", "SGM Uniform"},
    {"simple", "Simple"},
}};

std::string first_or(const std::vector<std::string>& names, const std::string& given) {
  if (!given.empty() || names.empty()) return given;
  return names.front();
}

}  // namespace

std::string_view display_name(std::string_view canonical) {
  for (const auto& [name, display] : kDisplayNames) {
    if (name == canonical) return display;
  }
  return canonical;
}

image::Infotext describe(const GenerationRequest& request, std::int64_t seed, const Capabilities& capabilities,
                         std::string_view version) {
  image::Infotext infotext;
  infotext.prompt = request.prompt;
  infotext.negative_prompt = request.negative_prompt;
  const auto add = [&](const char* key, std::string value) {
    if (!value.empty()) infotext.items.push_back({key, std::move(value)});
  };
  add("Steps", std::to_string(request.steps));
  add("Sampler", std::string(display_name(first_or(capabilities.samplers, request.sampler))));
  add("Schedule type", std::string(display_name(first_or(capabilities.schedules, request.schedule))));
  add("CFG scale", image::python_float(request.guidance_scale));
  add("Seed", std::to_string(seed));
  add("Size", fmt::format("{}x{}", request.width, request.height));
  add("Model hash", capabilities.model_hash);
  add("Model", capabilities.model_name);
  if (request.clip_skip > 1) add("Clip skip", std::to_string(request.clip_skip));
  if (request.prompt_syntax != kPromptSyntaxes.front()) add("Prompt syntax", request.prompt_syntax);
  add("Prompt 2", request.prompt_2);
  add("Prompt 3", request.prompt_3);
  add("Negative prompt 2", request.negative_prompt_2);
  add("Negative prompt 3", request.negative_prompt_3);
  if (request.skip_layer_scale > 0) {
    std::string layers;
    for (const int layer : request.skip_layers) layers += (layers.empty() ? "" : ", ") + std::to_string(layer);
    add("Skip layers", std::move(layers));
    add("Skip layer scale", image::python_float(request.skip_layer_scale));
    add("Skip layer start", image::python_float(request.skip_layer_start));
    add("Skip layer stop", image::python_float(request.skip_layer_stop));
  }
  if (request.init_image != nullptr) add("Denoising strength", image::python_float(request.strength));
  if (request.mask != nullptr) {
    // Only what differs from what A1111's readers assume.
    if (request.mask_invert) add("Mask mode", "Inpaint not masked");
    if (request.mask_blur > 0) add("Mask blur", std::to_string(request.mask_blur));
    if (request.only_masked) {
      add("Inpaint area", "Only masked");
      add("Masked area padding", std::to_string(request.mask_padding));
    }
    if (request.masked_content == MaskedContent::kLatentNoise) add("Masked content", "latent noise");
    if (request.masked_content == MaskedContent::kLatentNothing) add("Masked content", "latent nothing");
  }
  add("Version", std::string(version));
  return infotext;
}

}  // namespace octavo::generation
