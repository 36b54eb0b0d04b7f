// DenoiseState as bytes: a mark, the request as JSON, its pictures, the known latents, the sampler's own block.
#include <boost/json.hpp>
#include <cstring>

#include "pipeline/pipeline.h"
#include "text/prompt_grammar.h"

namespace octavo::pipeline {
namespace {

constexpr std::string_view kMark = "OCTDNS2\n";
constexpr std::size_t kMaxRequestBytes = 4 << 20;  // six prompts at their limit, escaped

/// {"width": ..., "height": ..., "channels": ...} of a picture, null without one; the pixels follow the JSON.
boost::json::value describe(const std::shared_ptr<const image::Image>& picture) {
  if (picture == nullptr) return nullptr;
  return boost::json::object{{"width", picture->width}, {"height", picture->height}, {"channels", picture->channels}};
}

/// Reads what describe() wrote and takes the pixels from the front of `bytes`. False when they do not fit together.
bool take_picture(const boost::json::value* fields, std::span<const std::byte>& bytes,
                  std::shared_ptr<const image::Image>& target) {
  if (fields == nullptr) return false;
  if (fields->is_null()) return true;
  constexpr std::int64_t kMaxSide = 1 << 20;
  const auto read = [&](const char* name, std::int64_t highest) -> int {
    const auto* value = fields->is_object() ? fields->get_object().if_contains(name) : nullptr;
    if (value == nullptr || !value->is_int64()) return 0;
    return value->get_int64() < 1 || value->get_int64() > highest ? 0 : static_cast<int>(value->get_int64());
  };
  image::Image picture;
  picture.width = read("width", kMaxSide);
  picture.height = read("height", kMaxSide);
  picture.channels = read("channels", 4);
  const std::size_t count = picture.byte_count();
  if (count == 0 || count > bytes.size()) return false;
  const auto* first = reinterpret_cast<const std::uint8_t*>(bytes.data());
  picture.pixels.assign(first, first + count);
  bytes = bytes.subspan(count);
  target = std::make_shared<const image::Image>(std::move(picture));
  return true;
}

bool take_floats(std::uint64_t count, std::span<const std::byte>& bytes, std::vector<float>& target) {
  if (count > bytes.size() / sizeof(float)) return false;
  target.resize(static_cast<std::size_t>(count));
  std::memcpy(target.data(), bytes.data(), target.size() * sizeof(float));
  bytes = bytes.subspan(target.size() * sizeof(float));
  return true;
}

Status broken(const std::string& why) { return data_corruption("denoise state", why); }

}  // namespace

std::vector<std::byte> DenoiseState::to_bytes() const {
  const boost::json::object fields{{"prompt", request.prompt},
                                   {"negative_prompt", request.negative_prompt},
                                   {"width", request.width},
                                   {"height", request.height},
                                   {"steps", request.steps},
                                   {"guidance_scale", request.guidance_scale},
                                   {"seed", request.seed},
                                   {"noise_source", request.noise_source},
                                   {"subseed", request.subseed},
                                   {"subseed_strength", request.subseed_strength},
                                   {"seed_resize_width", request.seed_resize_width},
                                   {"seed_resize_height", request.seed_resize_height},
                                   {"shift", request.shift},
                                   {"eta", request.eta},
                                   {"s_noise", request.s_noise},
                                   {"image_count", request.image_count},
                                   {"sampler", request.sampler},
                                   {"schedule", request.schedule},
                                   {"t5_length", request.t5_length},
                                   {"prompt_2", request.prompt_2},
                                   {"prompt_3", request.prompt_3},
                                   {"negative_prompt_2", request.negative_prompt_2},
                                   {"negative_prompt_3", request.negative_prompt_3},
                                   {"prompt_syntax", request.prompt_syntax},
                                   {"clip_skip", request.clip_skip},
                                   {"skip_layer_scale", request.skip_layer_scale},
                                   {"skip_layers", boost::json::value_from(request.skip_layers)},
                                   {"skip_layer_start", request.skip_layer_start},
                                   {"skip_layer_stop", request.skip_layer_stop},
                                   {"keep_partial", request.keep_partial},
                                   {"strength", request.strength},
                                   {"resize_mode", static_cast<int>(request.resize_mode)},
                                   {"mask_blur", request.mask_blur},
                                   {"mask_invert", request.mask_invert},
                                   {"only_masked", request.only_masked},
                                   {"mask_padding", request.mask_padding},
                                   {"masked_content", static_cast<int>(request.masked_content)},
                                   {"init_image", describe(request.init_image)},
                                   {"mask", describe(request.mask)},
                                   {"known_latents", known ? known->image.size() : 0},
                                   {"known_mask", known ? known->mask.size() : 0},
                                   {"image_index", image_index}};
  const std::string text = boost::json::serialize(fields);
  std::vector<std::byte> bytes;
  const auto append = [&bytes](const void* data, std::size_t count) {
    const std::size_t at = bytes.size();
    bytes.resize(at + count);
    std::memcpy(bytes.data() + at, data, count);
  };
  append(kMark.data(), kMark.size());
  for (int shift = 0; shift < 32; shift += 8) {
    const auto byte = static_cast<std::byte>(text.size() >> shift);
    append(&byte, 1);
  }
  append(text.data(), text.size());
  for (const auto& picture : {request.init_image, request.mask}) {
    if (picture != nullptr) append(picture->pixels.data(), picture->pixels.size());
  }
  if (known) {
    for (const std::vector<float>* values : {&known->image, &known->noise, &known->mask}) {
      append(values->data(), values->size() * sizeof(float));
    }
  }
  const std::vector<std::byte> tail = sampler.to_bytes();
  append(tail.data(), tail.size());
  return bytes;
}

Result<DenoiseState> DenoiseState::from_bytes(std::span<const std::byte> bytes) {
  if (bytes.size() < kMark.size() + 4 || std::memcmp(bytes.data(), kMark.data(), kMark.size()) != 0) {
    return broken("does not begin with the mark of this version");
  }
  std::size_t length = 0;
  for (std::size_t i = 0; i < 4; ++i) length |= static_cast<std::size_t>(bytes[kMark.size() + i]) << (8 * i);
  bytes = bytes.subspan(kMark.size() + 4);
  if (length > kMaxRequestBytes || length > bytes.size()) return broken("the request's length is wrong");
  boost::system::error_code error;
  const auto value = boost::json::parse(std::string_view(reinterpret_cast<const char*>(bytes.data()), length), error);
  if (error || !value.is_object()) return broken("the request is not a JSON object");
  const auto& fields = value.get_object();
  DenoiseState state;
  bool complete = true;
  const auto read = [&]<typename T>(const char* name, T& target) {
    const auto* field = fields.if_contains(name);
    if (field == nullptr) {
      complete = false;
      return;
    }
    auto converted = boost::json::try_value_to<T>(*field);
    complete = complete && converted.has_value();
    if (converted.has_value()) target = *converted;
  };
  read("prompt", state.request.prompt);
  read("negative_prompt", state.request.negative_prompt);
  read("width", state.request.width);
  read("height", state.request.height);
  read("steps", state.request.steps);
  read("guidance_scale", state.request.guidance_scale);
  read("seed", state.request.seed);
  read("noise_source", state.request.noise_source);
  read("subseed", state.request.subseed);
  read("subseed_strength", state.request.subseed_strength);
  read("seed_resize_width", state.request.seed_resize_width);
  read("seed_resize_height", state.request.seed_resize_height);
  read("shift", state.request.shift);
  read("eta", state.request.eta);
  read("s_noise", state.request.s_noise);
  read("image_count", state.request.image_count);
  read("sampler", state.request.sampler);
  read("schedule", state.request.schedule);
  read("t5_length", state.request.t5_length);
  read("prompt_2", state.request.prompt_2);
  read("prompt_3", state.request.prompt_3);
  read("negative_prompt_2", state.request.negative_prompt_2);
  read("negative_prompt_3", state.request.negative_prompt_3);
  read("prompt_syntax", state.request.prompt_syntax);
  read("clip_skip", state.request.clip_skip);
  read("skip_layer_scale", state.request.skip_layer_scale);
  read("skip_layers", state.request.skip_layers);
  read("skip_layer_start", state.request.skip_layer_start);
  read("skip_layer_stop", state.request.skip_layer_stop);
  read("keep_partial", state.request.keep_partial);
  read("image_index", state.image_index);
  read("strength", state.request.strength);
  read("mask_blur", state.request.mask_blur);
  read("mask_invert", state.request.mask_invert);
  read("only_masked", state.request.only_masked);
  read("mask_padding", state.request.mask_padding);
  int resize_mode = 0, masked_content = 0;
  read("resize_mode", resize_mode);
  read("masked_content", masked_content);
  std::uint64_t known_latents = 0, known_mask = 0;
  read("known_latents", known_latents);
  read("known_mask", known_mask);
  if (!complete) return broken("the request lacks a field or has one of a wrong type");
  if (!text::find_prompt_syntax(state.request.prompt_syntax)) return broken("its prompt_syntax is unknown");
  if (resize_mode < 0 || resize_mode > static_cast<int>(image::FitMode::kFill) || masked_content < 0 ||
      masked_content > static_cast<int>(generation::MaskedContent::kLatentNothing)) {
    return broken("the request has a mode that does not exist");
  }
  state.request.resize_mode = static_cast<image::FitMode>(resize_mode);
  state.request.masked_content = static_cast<generation::MaskedContent>(masked_content);
  bytes = bytes.subspan(length);
  if (!take_picture(fields.if_contains("init_image"), bytes, state.request.init_image) ||
      !take_picture(fields.if_contains("mask"), bytes, state.request.mask)) {
    return broken("the request's pictures are not whole");
  }
  if (known_latents > 0) {
    KnownLatents known;
    if (!take_floats(known_latents, bytes, known.image) || !take_floats(known_latents, bytes, known.noise) ||
        !take_floats(known_mask, bytes, known.mask)) {
      return broken("the known latents are not whole");
    }
    state.known = std::move(known);
  }
  if (state.known.has_value() != (state.request.mask != nullptr)) {
    return broken("it has a mask without known latents, or the reverse");
  }
  OCTAVO_ASSIGN_OR_RETURN(state.sampler, sampling::SamplerState::from_bytes(bytes));
  return state;
}

}  // namespace octavo::pipeline
