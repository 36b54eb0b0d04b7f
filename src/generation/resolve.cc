#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <utility>

#include "base/utf8.h"
#include "generation/generation.h"

namespace octavo::generation {
namespace {

Status check_prompt(const std::string& text, const char* field) {
  if (text.size() > kMaxPromptBytes) {
    return invalid_argument(field, fmt::format("{} bytes long; at most {} are accepted", text.size(), kMaxPromptBytes));
  }
  if (text.find('\0') != std::string::npos) return invalid_argument(field, "contains a NUL byte");
  if (!is_valid_utf8(text)) return invalid_argument(field, "is not valid UTF-8");
  return {};
}

constexpr int kComfyUiT5Length = 77;  // its T5 sequences are as long as the text, and at least this

Status check_size(int value, const char* field, const Capabilities& can) {
  if (value < can.min_size || value > can.max_size || value % can.size_multiple != 0) {
    return invalid_argument(field, fmt::format("{} is not possible; {} draws multiples of {} from {} to {}", value,
                                               can.model_name, can.size_multiple, can.min_size, can.max_size));
  }
  return {};
}

/// Off: what is left of it is cleared, so that equal pictures have equal requests.
Status resolve_skip_layers(GenerationRequest& request, const Capabilities& can) {
  if (!std::isfinite(request.skip_layer_scale) || request.skip_layer_scale < 0 || request.skip_layer_scale > 100) {
    return invalid_argument("skip_layer_scale", "must be a number from 0 to 100");
  }
  const auto is_fraction = [](double value) { return value >= 0 && value <= 1; };
  if (!is_fraction(request.skip_layer_start)) {
    return invalid_argument("skip_layer_start", "must be a fraction of the steps, from 0 to 1");
  }
  if (!is_fraction(request.skip_layer_stop) || request.skip_layer_stop < request.skip_layer_start) {
    return invalid_argument("skip_layer_stop", "must be a fraction of the steps, from skip_layer_start to 1");
  }
  if (request.skip_layer_scale > 0 && request.skip_layers.empty()) {
    request.skip_layers.assign(kDefaultSkipLayers.begin(), kDefaultSkipLayers.end());
  }
  std::sort(request.skip_layers.begin(), request.skip_layers.end());
  request.skip_layers.erase(std::unique(request.skip_layers.begin(), request.skip_layers.end()),
                            request.skip_layers.end());
  for (const int layer : request.skip_layers) {
    if (layer < 0 || layer >= can.layer_count) {
      return invalid_argument("skip_layers", fmt::format("{} is no layer of {}, which has 0 to {}", layer,
                                                         can.model_name, can.layer_count - 1));
    }
  }
  if (request.skip_layer_scale == 0) {
    const GenerationRequest off;
    request.skip_layers = off.skip_layers;
    request.skip_layer_start = off.skip_layer_start;
    request.skip_layer_stop = off.skip_layer_stop;
  } else if (request.guidance_scale <= 1) {
    return invalid_argument("skip_layer_scale", "needs a guidance_scale above 1: without guidance it does nothing");
  }
  return {};
}

Status check_picture(const std::shared_ptr<const image::Image>& picture, const char* field) {
  if (picture == nullptr) return {};
  const bool possible = picture->width > 0 && picture->height > 0 &&
                        (picture->channels == 1 || picture->channels == 3 || picture->channels == 4) &&
                        picture->pixels.size() == picture->byte_count();
  if (!possible) return invalid_argument(field, "is not a picture of 1, 3 or 4 channels");
  return {};
}

Status check_range(int value, int highest, const char* field) {
  if (value >= 0 && value <= highest) return {};
  return invalid_argument(field, fmt::format("{} is outside 0 to {}", value, highest));
}

Status check_image_input(const GenerationRequest& request, const Capabilities& can) {
  OCTAVO_RETURN_IF_ERROR(check_picture(request.init_image, "init_image"));
  OCTAVO_RETURN_IF_ERROR(check_picture(request.mask, "mask"));
  if (request.init_image != nullptr && !can.image_input) {
    return invalid_argument("init_image", can.model_name +
                                              " cannot start from a picture: its file holds the "
                                              "autoencoder's decoder only");
  }
  if (request.mask != nullptr && request.init_image == nullptr) {
    return invalid_argument("mask", "needs an init_image to be a mask of");
  }
  if (!(request.strength > 0 && request.strength <= 1)) {
    return invalid_argument("strength", "must be a number above 0 and at most 1");
  }
  OCTAVO_RETURN_IF_ERROR(check_range(request.mask_blur, kMaxMaskBlur, "mask_blur"));
  return check_range(request.mask_padding, kMaxMaskPadding, "mask_padding");
}

/// `side` cut to the model's multiple, when the model can draw that; else `fallback`.
int own_side(int side, int fallback, const Capabilities& can) {
  const int cut = side - side % can.size_multiple;
  return cut >= can.min_size && cut <= can.max_size ? cut : fallback;
}

Status unknown_choice(const char* field, const std::string& given, const std::vector<NamedChoice>& choices) {
  std::string names;
  for (const NamedChoice& choice : choices) names += (names.empty() ? "" : ", ") + choice.name;
  constexpr std::size_t kShown = 64;  // what a client sent may be long
  return invalid_argument(field, fmt::format("unknown {} '{}{}'; use one of: {}", field, given.substr(0, kShown),
                                             given.size() > kShown ? "..." : "", names));
}

Status resolve_sampler(GenerationRequest& request, const Capabilities& can) {
  const NamedChoice* sampler = can.samplers.empty() ? nullptr : &can.samplers.front();
  const bool automatic = request.schedule.empty() || find_choice({{.name = "automatic"}}, request.schedule) != nullptr;
  const NamedChoice* schedule = automatic ? nullptr : find_choice(can.schedules, request.schedule);
  if (!automatic && schedule == nullptr) return unknown_choice("schedule", request.schedule, can.schedules);
  if (!request.sampler.empty()) {
    const SamplerAndSchedule named = find_sampler_and_schedule(request.sampler, can);
    if (named.sampler == nullptr) return unknown_choice("sampler", request.sampler, can.samplers);
    sampler = named.sampler;
    if (schedule == nullptr) schedule = named.schedule;
  }
  if (sampler == nullptr) return {};
  if (schedule == nullptr) schedule = find_choice(can.schedules, sampler->schedule);
  request.sampler = sampler->name;
  request.schedule = schedule == nullptr ? "" : schedule->name;
  return {};
}

Status check_number(double value, double low, double high, const char* field) {
  if (value >= low && value <= high) return {};
  return invalid_argument(field, fmt::format("must be a number from {} to {}", low, high));
}

/// 32 bits, as A1111 draws them: the seed shown can be typed back in any client.
std::int64_t random_seed() { return static_cast<std::int64_t>(std::random_device{}()) & 0xFFFFFFFF; }

Status resolve_noise(GenerationRequest& request) {
  if (request.noise_source.empty()) request.noise_source = "cpu";
  if (request.noise_source != "cpu" && request.noise_source != "nv") {
    return invalid_argument("noise_source", "must be cpu or nv, not '" + request.noise_source.substr(0, 64) + "'");
  }
  OCTAVO_RETURN_IF_ERROR(check_number(request.subseed_strength, 0, 1, "subseed_strength"));
  OCTAVO_RETURN_IF_ERROR(check_number(request.eta, 0, 1, "eta"));
  OCTAVO_RETURN_IF_ERROR(check_number(request.s_noise, 0, 10, "s_noise"));
  // Beyond these the levels of a long run meet in float.
  if (request.shift != 0) OCTAVO_RETURN_IF_ERROR(check_number(request.shift, 0.1, 100, "shift"));
  constexpr int kLargestSide = 16384;
  for (const auto& [value, field] : {std::pair{request.seed_resize_width, "seed_resize_width"},
                                     {request.seed_resize_height, "seed_resize_height"}}) {
    if (value < 0 || value > kLargestSide || (value > 0 && value < 8)) {
      return invalid_argument(field, fmt::format("{} is neither 0 (off) nor from 8 to {}", value, kLargestSide));
    }
  }
  for (const auto& [value, field] : {std::pair{request.seed, "seed"}, {request.subseed, "subseed"}}) {
    if (value > std::numeric_limits<std::int64_t>::max() - (request.image_count - 1)) {
      return invalid_argument(field, "is too large: the last picture's would not fit 64 bits");
    }
  }
  if (request.seed < 0) request.seed = random_seed();
  if (request.subseed < 0) request.subseed = random_seed();
  return {};
}

}  // namespace

Result<GenerationRequest> resolve(GenerationRequest request, const Capabilities& can) {
  OCTAVO_RETURN_IF_ERROR(check_prompt(request.prompt, "prompt"));
  OCTAVO_RETURN_IF_ERROR(check_prompt(request.prompt_2, "prompt_2"));
  OCTAVO_RETURN_IF_ERROR(check_prompt(request.prompt_3, "prompt_3"));
  OCTAVO_RETURN_IF_ERROR(check_prompt(request.negative_prompt, "negative_prompt"));
  OCTAVO_RETURN_IF_ERROR(check_prompt(request.negative_prompt_2, "negative_prompt_2"));
  OCTAVO_RETURN_IF_ERROR(check_prompt(request.negative_prompt_3, "negative_prompt_3"));
  if (request.prompt_syntax.empty()) request.prompt_syntax = kPromptSyntaxes.front();
  if (std::find(kPromptSyntaxes.begin(), kPromptSyntaxes.end(), request.prompt_syntax) == kPromptSyntaxes.end()) {
    return invalid_argument(
        "prompt_syntax", fmt::format("'{}' is not one of {}", request.prompt_syntax, fmt::join(kPromptSyntaxes, ", ")));
  }
  OCTAVO_RETURN_IF_ERROR(check_image_input(request, can));
  if (request.width == 0) {
    request.width =
        request.init_image ? own_side(request.init_image->width, can.default_width, can) : can.default_width;
  }
  if (request.height == 0) {
    request.height =
        request.init_image ? own_side(request.init_image->height, can.default_height, can) : can.default_height;
  }
  OCTAVO_RETURN_IF_ERROR(check_size(request.width, "width", can));
  OCTAVO_RETURN_IF_ERROR(check_size(request.height, "height", can));
  if (request.steps == 0) request.steps = can.default_steps;
  if (request.steps < 1 || request.steps > can.max_steps) {
    return invalid_argument("steps", fmt::format("{} is outside 1 to {}", request.steps, can.max_steps));
  }
  if (request.guidance_scale < 0) request.guidance_scale = can.default_guidance_scale;
  if (!std::isfinite(request.guidance_scale) || request.guidance_scale > 100) {
    return invalid_argument("guidance_scale", "must be a number from 0 to 100");
  }
  OCTAVO_RETURN_IF_ERROR(resolve_skip_layers(request, can));
  if (request.image_count < 1 || request.image_count > kMaxImageCount) {
    return invalid_argument("image_count", fmt::format("{} is outside 1 to {}", request.image_count, kMaxImageCount));
  }
  if (request.clip_skip < 0 || request.clip_skip > can.max_clip_skip) {
    return invalid_argument("clip_skip", fmt::format("{} is outside 0 to {}", request.clip_skip, can.max_clip_skip));
  }
  if (request.t5_length == 0) {
    request.t5_length =
        request.prompt_syntax == "comfyui" ? std::min(kComfyUiT5Length, can.max_t5_length) : can.default_t5_length;
  }
  if (request.t5_length < 1 || request.t5_length > can.max_t5_length) {
    return invalid_argument("t5_length", fmt::format("{} is outside 1 to {}", request.t5_length, can.max_t5_length));
  }
  OCTAVO_RETURN_IF_ERROR(resolve_sampler(request, can));
  OCTAVO_RETURN_IF_ERROR(resolve_noise(request));
  return request;
}

}  // namespace octavo::generation
