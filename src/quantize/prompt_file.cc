#include "quantize/prompt_file.h"

#include <boost/json/parse.hpp>
#include <fstream>
#include <string_view>

#include "base/sha256.h"
#include "base/utf8.h"
#include "generation/generation.h"

namespace octavo::quantize {
namespace {

constexpr std::size_t kMostBytes = std::size_t{64} << 20;

std::string_view trimmed(std::string_view line) {
  constexpr std::string_view kSpaces = " \t\r";
  const std::size_t begin = line.find_first_not_of(kSpaces);
  if (begin == std::string_view::npos) return {};
  return line.substr(begin, line.find_last_not_of(kSpaces) - begin + 1);
}

/// A text member, "" when it is not there.
Result<std::string> text_of(const boost::json::object& line, const char* name, const std::string& place,
                            const std::string& flag) {
  const boost::json::value* found = line.if_contains(name);
  if (found == nullptr) return std::string();
  if (!found->is_string()) return invalid_argument(flag, fmt::format("{}: \"{}\" is not a text", place, name));
  return std::string(found->get_string());
}

Result<PromptEntry> parse_json_line(std::string_view line, const std::string& place, const std::string& flag) {
  boost::json::error_code error;
  const boost::json::value value = boost::json::parse(boost::json::string_view(line.data(), line.size()), error);
  if (error || !value.is_object())
    return invalid_argument(flag, place + ": is not a JSON object, as the first line is");
  const boost::json::object& object = value.get_object();
  PromptEntry entry;
  OCTAVO_ASSIGN_OR_RETURN(entry.prompt, text_of(object, "prompt", place, flag));
  OCTAVO_ASSIGN_OR_RETURN(entry.negative_prompt, text_of(object, "negative_prompt", place, flag));
  if (!object.contains("prompt")) return invalid_argument(flag, place + ": has no \"prompt\"");
  if (const auto* seed = object.if_contains("seed")) {
    if (!seed->is_int64() || seed->get_int64() < 0) {
      return invalid_argument(flag, place + ": \"seed\" is not a whole number from 0");
    }
    entry.seed = seed->get_int64();
  }
  if (const auto* facts = object.if_contains("facts")) {
    if (!facts->is_array()) return invalid_argument(flag, place + ": \"facts\" is not a list");
    entry.facts = *facts;
  }
  return entry;
}

}  // namespace

Result<PromptFile> read_prompt_file(const std::filesystem::path& path, const std::string& flag) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return invalid_argument(flag, path.string() + " is a folder");
  std::ifstream file(path, std::ios::binary);
  if (!file) return not_found(flag, path.string() + " cannot be read");
  std::string text;
  for (std::string portion(64 << 10, '\0'); file && text.size() <= kMostBytes;) {
    file.read(portion.data(), static_cast<std::streamsize>(portion.size()));
    text.append(portion, 0, static_cast<std::size_t>(file.gcount()));
  }
  if (text.size() > kMostBytes) return invalid_argument(flag, path.string() + " is larger than 64 MiB");

  PromptFile result;
  result.hash = sha256_hex(text);
  std::string_view rest = text;
  if (rest.starts_with("\xEF\xBB\xBF")) rest.remove_prefix(3);  // some editors begin UTF-8 so
  std::optional<bool> json_lines;
  for (int number = 1; !rest.empty(); ++number) {
    const std::size_t end = rest.find('\n');
    const std::string_view line = trimmed(rest.substr(0, end));
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    if (line.empty()) continue;
    const std::string place = fmt::format("{} line {}", path.string(), number);
    if (!json_lines) json_lines = line.front() == '{';
    PromptEntry entry;
    if (*json_lines) {
      OCTAVO_ASSIGN_OR_RETURN(entry, parse_json_line(line, place, flag));
    } else {
      entry.prompt = line;
    }
    for (const std::string* words : {&entry.prompt, &entry.negative_prompt}) {
      if (words->size() > generation::kMaxPromptBytes) {
        return invalid_argument(flag, fmt::format("{}: is longer than {} bytes", place, generation::kMaxPromptBytes));
      }
      if (!is_valid_utf8(*words) || words->find('\0') != std::string::npos) {
        return invalid_argument(flag, place + ": is not UTF-8 text");
      }
    }
    result.entries.push_back(std::move(entry));
  }
  if (result.entries.empty()) return invalid_argument(flag, path.string() + " holds no prompt");
  return result;
}

}  // namespace octavo::quantize
