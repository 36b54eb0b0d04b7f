// DenoiseState as bytes: a mark, the request as JSON, the sampler's own block.
#include <boost/json.hpp>
#include <cstring>

#include "pipeline/pipeline.h"
#include "text/prompt_grammar.h"

namespace octavo::pipeline {
namespace {

constexpr std::string_view kMark = "OCTDNS1\n";
constexpr std::size_t kMaxRequestBytes = 4 << 20;  // six prompts at their limit, escaped

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
  if (!complete) return broken("the request lacks a field or has one of a wrong type");
  if (!text::find_prompt_syntax(state.request.prompt_syntax)) return broken("its prompt_syntax is unknown");
  OCTAVO_ASSIGN_OR_RETURN(state.sampler, sampling::SamplerState::from_bytes(bytes.subspan(length)));
  return state;
}

}  // namespace octavo::pipeline
