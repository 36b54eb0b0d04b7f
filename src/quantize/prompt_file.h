// Files of prompts, as `octavo quantize` and `octavo compare` take them.
#pragma once

#include <boost/json/value.hpp>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"

namespace octavo::quantize {

struct PromptEntry {
  std::string prompt;                // UTF-8
  std::string negative_prompt;       // "" when the file has none
  std::optional<std::int64_t> seed;  // of its first picture; else the caller's
  boost::json::value facts;          // what the prompt asserts (judge/facts.h); null when it has none
};

struct PromptFile {
  std::vector<PromptEntry> entries;  // at least one
  std::string hash;                  // SHA-256 of the file's bytes
};

/// One prompt a line, as it stands but for spaces at the ends; empty lines are left out. A file whose first line that
/// is not empty begins with "{" holds JSON lines instead: {"prompt": text, "negative_prompt": text, "seed": number,
/// "facts": [...]}, all but the first optional, other members ignored. kNotFound, kInvalidArgument: the message begins
/// with `flag`, the file and the line.
Result<PromptFile> read_prompt_file(const std::filesystem::path& path, const std::string& flag);

}  // namespace octavo::quantize
