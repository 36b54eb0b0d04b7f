// The files of a Hugging Face tokenizer folder, read strictly.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/status.h"

namespace octavo::text {

/// The bytes of a file of at most 64 MiB.
Result<std::string> read_tokenizer_file(const std::filesystem::path& path);

/// vocab.json: token -> id, ids in [0, 2^24).
Result<std::unordered_map<std::string, std::int32_t>> read_vocabulary(const std::filesystem::path& path);

/// merges.txt: pairs in order of rank; a first line that begins with "#version" is skipped.
Result<std::vector<std::pair<std::string, std::string>>> read_merges(const std::filesystem::path& path);

struct SpecialTokens {
  struct Entry {
    std::string content;
    bool normalized = false;  // matched in the normalised text instead of the raw one
  };
  std::map<std::string, Entry> by_role;               // "bos_token", "eos_token", "unk_token", "pad_token"
  std::map<std::string, bool> normalized_by_content;  // as the tokenizers library ends up with: the last role wins
  std::vector<std::string> additional;                // additional_special_tokens
  int extra_ids = 0;                                  // T5's <extra_id_N>
  int model_max_length = 0;
};
/// tokenizer_config.json overlaid by special_tokens_map.json; at least the first must exist.
Result<SpecialTokens> read_special_tokens(const std::filesystem::path& folder);

}  // namespace octavo::text
