#include "ops/cuda/choice_file.h"

#include <cstdint>
#include <cstring>
#include <fstream>
#include <optional>
#include <system_error>

#include "base/ids.h"
#include "base/sha256.h"

namespace octavo::ops {
namespace {

constexpr std::string_view kMagic = "octavo choices 1\n";
constexpr std::size_t kDigestBytes = 64;
constexpr std::uintmax_t kMostBytes = 16 << 20;  // thousands of choices; nothing else is read

void put(std::string& to, std::string_view bytes) {
  const auto count = static_cast<std::uint32_t>(bytes.size());
  to.append(reinterpret_cast<const char*>(&count), sizeof count);
  to.append(bytes);
}

/// Takes counted bytes off the front; nothing when there are fewer than counted.
std::optional<std::string_view> take(std::string_view& from) {
  std::uint32_t count = 0;
  if (from.size() < sizeof count) return std::nullopt;
  std::memcpy(&count, from.data(), sizeof count);
  from.remove_prefix(sizeof count);
  if (from.size() < count) return std::nullopt;
  const std::string_view bytes = from.substr(0, count);
  from.remove_prefix(count);
  return bytes;
}

}  // namespace

Choices read_choices(const std::filesystem::path& path, std::string_view identity) {
  std::error_code error;
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (error || size > kMostBytes || size < kMagic.size() + kDigestBytes) return {};
  std::string content(static_cast<std::size_t>(size), '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file.read(content.data(), static_cast<std::streamsize>(content.size()))) return {};
  std::string_view rest = content;
  const std::string_view digest = rest.substr(rest.size() - kDigestBytes);
  rest.remove_suffix(kDigestBytes);
  if (!rest.starts_with(kMagic) || sha256_hex(rest) != digest) return {};
  rest.remove_prefix(kMagic.size());
  const auto owner = take(rest);
  if (!owner || *owner != identity) return {};
  Choices choices;
  while (!rest.empty()) {
    const auto key = take(rest);
    const auto value = key ? take(rest) : std::nullopt;
    if (!value) return {};
    choices.emplace(*key, *value);
  }
  return choices;
}

Status add_choices(const std::filesystem::path& path, std::string_view identity, const Choices& choices) {
  Choices all = read_choices(path, identity);
  for (const auto& [key, value] : choices) all.insert_or_assign(key, value);
  std::string content(kMagic);
  put(content, identity);
  for (const auto& [key, value] : all) {
    put(content, key);
    put(content, value);
  }
  content += sha256_hex(content);
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  const std::filesystem::path part = path.string() + "." + random_id();
  {
    std::ofstream file(part, std::ios::binary);
    file.write(content.data(), static_cast<std::streamsize>(content.size()));
    file.flush();
    if (!file) {
      std::filesystem::remove(part, error);
      return unavailable(path.string(), "cannot be written");
    }
  }
  std::filesystem::rename(part, path, error);
  if (error) {
    const std::string reason = error.message();
    std::filesystem::remove(part, error);
    return unavailable(path.string(), "cannot be replaced: " + reason);
  }
  return {};
}

}  // namespace octavo::ops
