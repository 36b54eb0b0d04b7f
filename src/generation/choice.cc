#include <algorithm>

#include "generation/generation.h"

namespace octavo::generation {
namespace {

std::string ascii_lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return lower;
}

}  // namespace

bool NamedChoice::answers_to(std::string_view text) const {
  const std::string wanted = ascii_lower(text);
  return wanted == name || wanted == ascii_lower(label) ||
         std::find(aliases.begin(), aliases.end(), wanted) != aliases.end();
}

const NamedChoice* find_choice(const std::vector<NamedChoice>& choices, std::string_view text) {
  const auto found = std::find_if(choices.begin(), choices.end(),
                                  [text](const NamedChoice& choice) { return choice.answers_to(text); });
  return found == choices.end() ? nullptr : &*found;
}

SamplerAndSchedule find_sampler_and_schedule(std::string_view text, const Capabilities& capabilities) {
  constexpr std::size_t kLongestName = 128;  // what a client sends may be long; no name is
  if (text.size() > kLongestName) return {};
  if (const NamedChoice* whole = find_choice(capabilities.samplers, text)) return {whole, nullptr};
  for (std::size_t space = text.find(' '); space != std::string_view::npos; space = text.find(' ', space + 1)) {
    const NamedChoice* sampler = find_choice(capabilities.samplers, text.substr(0, space));
    const NamedChoice* schedule = find_choice(capabilities.schedules, text.substr(space + 1));
    if (sampler != nullptr && schedule != nullptr) return {sampler, schedule};
  }
  return {};
}

ImageSeeds image_seeds(const GenerationRequest& request, int image_index) {
  const bool varied = request.subseed_strength != 0;
  return {varied ? request.seed : request.seed + image_index, request.subseed + image_index};
}

}  // namespace octavo::generation
