#include "generation/infotext.h"

namespace octavo::generation {
namespace {

/// As A1111 spells it; "" = the default's.
std::string label_of(const std::vector<NamedChoice>& choices, const std::string& name) {
  if (name.empty()) return choices.empty() ? "" : choices.front().label;
  const NamedChoice* choice = find_choice(choices, name);
  return choice == nullptr ? name : choice->label;
}

}  // namespace

image::Infotext describe(const GenerationRequest& request, const ImageSeeds& seeds, const Capabilities& capabilities,
                         std::string_view version) {
  image::Infotext infotext;
  infotext.prompt = request.prompt;
  infotext.negative_prompt = request.negative_prompt;
  const auto add = [&](const char* key, std::string value) {
    if (!value.empty()) infotext.items.push_back({key, std::move(value)});
  };
  add("Steps", std::to_string(request.steps));
  add("Sampler", label_of(capabilities.samplers, request.sampler));
  add("Schedule type", label_of(capabilities.schedules, request.schedule));
  add("CFG scale", image::python_float(request.guidance_scale));
  add("Seed", std::to_string(seeds.seed));
  add("Size", fmt::format("{}x{}", request.width, request.height));
  add("Model hash", capabilities.model_hash);
  add("Model", capabilities.model_name);
  if (request.subseed_strength != 0) {
    add("Variation seed", std::to_string(seeds.subseed));
    add("Variation seed strength", image::python_float(request.subseed_strength));
  }
  if (request.seed_resize_width > 0 && request.seed_resize_height > 0) {
    add("Seed resize from", fmt::format("{}x{}", request.seed_resize_width, request.seed_resize_height));
  }
  if (request.clip_skip > 1) add("Clip skip", std::to_string(request.clip_skip));
  // A1111 leaves its default out, which is the GPU's own generator.
  add("RNG", request.noise_source == "nv" ? "NV" : "CPU");
  const NamedChoice* sampler = find_choice(capabilities.samplers, request.sampler);
  if (sampler != nullptr && sampler->uses_eta) {
    if (request.eta != 1) add("Eta", image::python_float(request.eta));
    if (request.s_noise != 1) add("Sigma noise", image::python_float(request.s_noise));
  }
  if (request.shift != 0) add("Shift", image::python_float(request.shift));
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
