// T5's tokenizer: a sentencepiece unigram model (Kudo 2018) with the normalisation, words and special tokens of
// transformers around it: equal id for id to T5TokenizerFast, which differs from sentencepiece alone in how clusters of
// combining marks are normalised.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace octavo::text {

/// Immutable after load; encode() may be called from any thread.
class T5Tokenizer {
 public:
  /// `folder` holds spiece.model and tokenizer_config.json. A folder with tokenizer.json alone is refused with a
  /// message that says where spiece.model comes from.
  static Result<T5Tokenizer> load(const std::filesystem::path& folder);

  T5Tokenizer(T5Tokenizer&&) noexcept;
  T5Tokenizer& operator=(T5Tokenizer&&) noexcept;
  ~T5Tokenizer();

  /// Ids without the end token. Special tokens in the text (</s>, <pad>, <unk>, <extra_id_N>) stand for their ids.
  std::vector<std::int32_t> encode(std::string_view text) const;
  /// ids + </s>, cut to `length` (</s> stays last), padded with <pad>.
  std::vector<std::int32_t> encode_padded(std::string_view text, int length) const;

  std::int32_t end_id() const;
  std::int32_t pad_id() const;
  int model_max_length() const;  // 512 for SD3.5
  std::size_t vocabulary_size() const;

 private:
  T5Tokenizer();
  struct Tables;
  std::unique_ptr<const Tables> tables_;
};

}  // namespace octavo::text
