#include "text/prompt_tokens.h"

#include <algorithm>

namespace octavo::text {
namespace {

constexpr std::size_t kRoom = kClipChunkLength - 2;
constexpr std::size_t kCommaReach = 20;  // AUTOMATIC1111's comma_padding_backtrack
constexpr std::size_t kWholeWord = 8;    // ComfyUI's max_word_length

/// Between start and end, padded.
WeightedIds closed(const ClipTokenizer& tokenizer, const WeightedIds& inner) {
  WeightedIds chunk;
  chunk.append(tokenizer.start_id());
  for (std::size_t i = 0; i < inner.ids.size(); ++i) chunk.append(inner.ids[i], inner.weights[i]);
  chunk.append(tokenizer.end_id());
  while (chunk.ids.size() < kClipChunkLength) chunk.append(tokenizer.pad_id());
  return chunk;
}

std::vector<WeightedIds> a1111_chunks(const ClipTokenizer& tokenizer, std::span<const PromptSegment> segments) {
  const std::vector<std::int32_t> comma = tokenizer.encode(",");
  std::vector<WeightedIds> chunks;
  WeightedIds open;
  std::size_t behind_comma = 0;  // in `open`; 0 = it has none
  const auto finish = [&] {
    chunks.push_back(closed(tokenizer, open));
    open = {};
    behind_comma = 0;
  };
  for (const PromptSegment& segment : segments) {
    if (segment.begins_chunk) finish();
    for (const std::int32_t id : tokenizer.encode(segment.text)) {
      const bool is_comma = comma.size() == 1 && id == comma[0];
      if (open.ids.size() == kRoom) {
        WeightedIds moved;
        if (!is_comma && behind_comma > 0 && kRoom - (behind_comma - 1) <= kCommaReach) {
          for (std::size_t i = behind_comma; i < kRoom; ++i) moved.append(open.ids[i], open.weights[i]);
          open.ids.resize(behind_comma);
          open.weights.resize(behind_comma);
        }
        finish();
        open = std::move(moved);
      }
      open.append(id, segment.weight);
      if (is_comma) behind_comma = open.ids.size();
    }
  }
  if (!open.ids.empty() || chunks.empty()) finish();
  return chunks;
}

std::vector<WeightedIds> comfyui_chunks(const ClipTokenizer& tokenizer, std::span<const PromptSegment> segments) {
  std::vector<WeightedIds> chunks;
  WeightedIds open;
  const auto finish = [&] {
    chunks.push_back(closed(tokenizer, open));
    open = {};
  };
  for (const PromptSegment& segment : segments) {
    const std::vector<std::int32_t> ids = tokenizer.encode(segment.text);
    if (ids.size() < kWholeWord && open.ids.size() + ids.size() > kRoom) finish();
    for (const std::int32_t id : ids) {
      if (open.ids.size() == kRoom) finish();
      open.append(id, segment.weight);
    }
  }
  finish();
  return chunks;
}

}  // namespace

void WeightedIds::append(std::int32_t id, double weight) {
  ids.push_back(id);
  weights.push_back(static_cast<float>(weight));
}

bool WeightedIds::weighted() const {
  return std::any_of(weights.begin(), weights.end(), [](float weight) { return weight != 1.0f; });
}

std::vector<WeightedIds> clip_chunks(const ClipTokenizer& tokenizer, std::span<const PromptSegment> segments,
                                     PromptSyntax syntax) {
  switch (syntax) {
    case PromptSyntax::kA1111:
      return a1111_chunks(tokenizer, segments);
    case PromptSyntax::kComfyUi:
      return comfyui_chunks(tokenizer, segments);
    case PromptSyntax::kPlain:
      break;
  }
  WeightedIds inner;
  for (const PromptSegment& segment : segments) {
    for (const std::int32_t id : tokenizer.encode(segment.text)) {
      if (inner.ids.size() < kRoom) inner.append(id);
    }
  }
  return {closed(tokenizer, inner)};
}

WeightedIds empty_clip_chunk(const ClipTokenizer& tokenizer) { return closed(tokenizer, {}); }

WeightedIds t5_ids(const T5Tokenizer& tokenizer, std::span<const PromptSegment> segments) {
  WeightedIds all;
  for (const PromptSegment& segment : segments) {
    for (const std::int32_t id : tokenizer.encode(segment.text)) all.append(id, segment.weight);
  }
  all.append(tokenizer.end_id());
  return all;
}

WeightedIds fit_t5(const T5Tokenizer& tokenizer, WeightedIds ids, int length) {
  OCTAVO_CHECK(length >= 1 && !ids.ids.empty(), "{} ids do not fit {}", ids.ids.size(), length);
  const auto count = static_cast<std::size_t>(length);
  if (ids.ids.size() > count) {
    ids.ids.resize(count - 1);
    ids.weights.resize(count - 1);
    ids.append(tokenizer.end_id());
  }
  while (ids.ids.size() < count) ids.append(tokenizer.pad_id());
  return ids;
}

}  // namespace octavo::text
