// CLIP's tokenizer: lower-cased byte-level BPE with an end-of-word mark (Radford et al. 2021), equal id for id to the
// tokenizers library behind transformers' CLIPTokenizer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace octavo::text {

/// Immutable after load; encode() may be called from any thread.
class ClipTokenizer {
 public:
  /// `folder` holds vocab.json, merges.txt, and tokenizer_config.json and/or special_tokens_map.json.
  /// Errors name the file.
  static Result<ClipTokenizer> load(const std::filesystem::path& folder);

  ClipTokenizer(ClipTokenizer&&) noexcept;
  ClipTokenizer& operator=(ClipTokenizer&&) noexcept;
  ~ClipTokenizer();

  /// Ids of the whole text without start and end. Bytes that are not UTF-8 count as U+FFFD. Time is about linear,
  /// also for one word of a megabyte.
  std::vector<std::int32_t> encode(std::string_view text) const;
  /// [start] + ids + [end], cut to `length` (the end token is always last of the text), then padded to it.
  std::vector<std::int32_t> encode_padded(std::string_view text, int length) const;

  int model_max_length() const;  // 77
  std::int32_t start_id() const;
  std::int32_t end_id() const;
  std::int32_t pad_id() const;  // CLIP-L pads with the end token, CLIP-G with "!"
  std::size_t vocabulary_size() const;

 private:
  ClipTokenizer();
  struct Tables;
  std::unique_ptr<const Tables> tables_;
};

}  // namespace octavo::text
