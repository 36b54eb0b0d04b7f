// The normalisation table inside a sentencepiece model ("precompiled charsmap"), applied as the tokenizers library
// does.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace octavo::text {

/// A double-array trie (Darts-clone) from UTF-8 prefixes to replacements. Immutable; safe from any thread.
class Charsmap {
 public:
  /// No table: normalize() returns its input.
  Charsmap() = default;
  /// `blob`: u32 bytes of trie (little-endian), the trie's u32 units, replacements ended by NUL. `file` is named in
  /// errors.
  static Result<Charsmap> parse(std::string_view blob, const std::string& file);

  /// `text` is UTF-8 (other bytes become U+FFFD). As in the tokenizers library, and unlike sentencepiece's longest
  /// match: a grapheme cluster of fewer than six bytes is replaced whole by the shortest entry that begins it;
  /// where there is none, each of its code points is looked up alone and kept when it has no entry.
  std::string normalize(std::string_view text) const;

 private:
  /// The replacement of the shortest entry that is a prefix of `key`, or nullptr.
  const char* find(std::string_view key) const;

  std::vector<std::uint32_t> units_;
  std::string replacements_;  // ends with NUL when it holds anything
};

}  // namespace octavo::text
