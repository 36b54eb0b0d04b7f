// Any bytes as a prompt in every grammar: weights stay in bounds, chunks have the encoders' shape, and text without
// special characters comes back as it is.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "text/prompt_tokens.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace octavo::text;
  static const auto clip =
      ClipTokenizer::load(std::string(OCTAVO_SOURCE_DIR) + "/models/octavo-tiny/tokenizer").value();
  const std::string_view prompt(reinterpret_cast<const char*>(data), size);
  const bool special = prompt.find_first_of("()[]\\:<") != std::string_view::npos ||
                       prompt.find("BREAK") != std::string_view::npos || prompt.find('\0') != std::string_view::npos;
  for (const PromptSyntax syntax : {PromptSyntax::kPlain, PromptSyntax::kA1111, PromptSyntax::kComfyUi}) {
    const auto segments = parse_prompt(prompt, syntax);
    std::size_t bytes = 0;
    for (const PromptSegment& segment : segments) {
      if (!(std::abs(segment.weight) <= kMostWeight)) std::abort();
      bytes += segment.text.size();
    }
    if (bytes > size) std::abort();
    if (!special && size > 0 && (segments.size() != 1 || segments[0].text != prompt || segments[0].weight != 1)) {
      std::abort();
    }
    for (const WeightedIds& chunk : clip_chunks(clip, segments, syntax)) {
      if (chunk.ids.size() != kClipChunkLength || chunk.weights.size() != kClipChunkLength) std::abort();
      if (chunk.ids.front() != clip.start_id() || chunk.weights.front() != 1.0f) std::abort();
    }
  }
  return 0;
}
