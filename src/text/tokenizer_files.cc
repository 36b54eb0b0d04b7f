#include "text/tokenizer_files.h"

#include <boost/json.hpp>
#include <fstream>

namespace octavo::text {
namespace fs = std::filesystem;
namespace {

constexpr std::uintmax_t kMaxFileBytes = 64 << 20;

Result<boost::json::object> read_object(const fs::path& path) {
  OCTAVO_ASSIGN_OR_RETURN(const std::string text, read_tokenizer_file(path));
  boost::json::parse_options options;
  options.max_depth = 16;
  boost::system::error_code error;
  auto value = boost::json::parse(text, error, {}, options);
  if (error) return data_corruption(path.string(), "is not valid JSON: " + error.message());
  if (!value.is_object()) return data_corruption(path.string(), "is not a JSON object");
  return std::move(value.get_object());
}

/// A special token is written as its text or as an object with content and flags.
bool read_entry(const boost::json::value& value, SpecialTokens::Entry& entry) {
  if (value.is_string()) {
    entry = {std::string(value.get_string()), false};
    return true;
  }
  if (!value.is_object()) return false;
  const auto* content = value.get_object().if_contains("content");
  if (content == nullptr || !content->is_string()) return false;
  const auto* normalized = value.get_object().if_contains("normalized");
  entry = {std::string(content->get_string()),
           normalized != nullptr && normalized->is_bool() && normalized->get_bool()};
  return true;
}

}  // namespace

Result<std::string> read_tokenizer_file(const fs::path& path) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error) return not_found(path.string(), "no such file");
  if (size > kMaxFileBytes) return data_corruption(path.string(), fmt::format("{} bytes are too many", size));
  std::ifstream file(path, std::ios::binary);
  std::string text(static_cast<std::size_t>(size), '\0');
  if (!file.read(text.data(), static_cast<std::streamsize>(size))) {
    return failed_precondition(path.string(), "cannot be read");
  }
  return text;
}

Result<std::unordered_map<std::string, std::int32_t>> read_vocabulary(const fs::path& path) {
  OCTAVO_ASSIGN_OR_RETURN(const auto object, read_object(path));
  std::unordered_map<std::string, std::int32_t> vocabulary;
  vocabulary.reserve(object.size());
  for (const auto& member : object) {
    if (!member.value().is_int64() || member.value().get_int64() < 0 || member.value().get_int64() >= (1 << 24)) {
      return data_corruption(path.string(), "the id of '" + std::string(member.key()) + "' is not an id");
    }
    vocabulary.emplace(member.key(), static_cast<std::int32_t>(member.value().get_int64()));
  }
  return vocabulary;
}

Result<std::vector<std::pair<std::string, std::string>>> read_merges(const fs::path& path) {
  OCTAVO_ASSIGN_OR_RETURN(const std::string text, read_tokenizer_file(path));
  std::vector<std::pair<std::string, std::string>> merges;
  std::size_t begin = 0, number = 0;
  while (begin < text.size()) {
    std::size_t end = text.find('\n', begin);
    if (end == std::string::npos) end = text.size();
    std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty() || (number == 1 && line.starts_with("#version"))) continue;
    const std::size_t space = line.find(' ');
    if (space == std::string::npos || space == 0 || space + 1 == line.size() ||
        line.find(' ', space + 1) != std::string::npos) {
      return data_corruption(path.string(), fmt::format("line {} is not a pair of tokens", number));
    }
    merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  }
  return merges;
}

Result<SpecialTokens> read_special_tokens(const fs::path& folder) {
  SpecialTokens result;
  const fs::path config_path = folder / "tokenizer_config.json";
  const fs::path map_path = folder / "special_tokens_map.json";
  OCTAVO_ASSIGN_OR_RETURN(const auto config, read_object(config_path));
  boost::json::object map;
  std::error_code error;
  if (fs::exists(map_path, error)) {
    OCTAVO_ASSIGN_OR_RETURN(map, read_object(map_path));
  }
  for (const char* role : {"bos_token", "eos_token", "unk_token", "pad_token"}) {
    const auto* value = map.if_contains(role);
    const fs::path& source = value != nullptr ? map_path : config_path;
    if (value == nullptr) value = config.if_contains(role);
    if (value == nullptr || value->is_null()) continue;
    SpecialTokens::Entry entry;
    if (!read_entry(*value, entry)) return data_corruption(source.string(), std::string(role) + " is not a token");
    result.normalized_by_content[entry.content] = entry.normalized;
    result.by_role[role] = std::move(entry);
  }
  const auto* additional = map.if_contains("additional_special_tokens");
  if (additional == nullptr) additional = config.if_contains("additional_special_tokens");
  if (additional != nullptr && additional->is_array()) {
    for (const auto& value : additional->get_array()) {
      SpecialTokens::Entry entry;
      if (read_entry(value, entry)) result.additional.push_back(entry.content);
    }
  }
  if (const auto* extra = config.if_contains("extra_ids");
      extra != nullptr && extra->is_int64() && extra->get_int64() >= 0 && extra->get_int64() <= 10000) {
    result.extra_ids = static_cast<int>(extra->get_int64());
  }
  const auto* length = config.if_contains("model_max_length");
  if (length == nullptr || !length->is_number())
    return data_corruption(config_path.string(), "has no model_max_length");
  const double value = length->to_number<double>();  // "no limit" is written as 1e30
  if (!(value >= 2)) return data_corruption(config_path.string(), "model_max_length is below 2");
  result.model_max_length = value > 1e6 ? 1'000'000 : static_cast<int>(value);
  return result;
}

}  // namespace octavo::text
