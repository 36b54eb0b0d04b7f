// Weighted prompts as the encoders take them: ids in chunks of 77 for CLIP, one sequence for T5, a weight for each.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "text/clip_tokenizer.h"
#include "text/prompt_grammar.h"
#include "text/t5_tokenizer.h"

namespace octavo::text {

inline constexpr int kClipChunkLength = 77;  // start, 75 tokens, end

/// Ids that an encoder reads at once. Start, end and padding weigh 1.
struct WeightedIds {
  std::vector<std::int32_t> ids;
  std::vector<float> weights;
  bool operator==(const WeightedIds&) const = default;

  void append(std::int32_t id, double weight = 1);
  /// Any weight other than 1.
  bool weighted() const;
};

/// Chunks of kClipChunkLength, at least one.
///   kPlain: one, cut as in diffusers.
///   kA1111: as many as it takes; a chunk that overflows is cut behind its last comma when that is at most 20 tokens
///           back; BREAK ends a chunk.
///   kComfyUi: as many as it takes; a segment of fewer than eight tokens that does not fit goes whole into the next.
std::vector<WeightedIds> clip_chunks(const ClipTokenizer& tokenizer, std::span<const PromptSegment> segments,
                                     PromptSyntax syntax);
/// The chunk of an empty prompt.
WeightedIds empty_clip_chunk(const ClipTokenizer& tokenizer);

/// The segments' ids one after the other and the end token; no padding.
WeightedIds t5_ids(const T5Tokenizer& tokenizer, std::span<const PromptSegment> segments);
/// Cut (the end token stays last) or padded to `length` >= 1.
WeightedIds fit_t5(const T5Tokenizer& tokenizer, WeightedIds ids, int length);

}  // namespace octavo::text
