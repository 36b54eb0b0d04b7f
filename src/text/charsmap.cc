#include "text/charsmap.h"

#include <utf8proc.h>

#include "text/unicode.h"

namespace octavo::text {
namespace {

constexpr std::size_t kLongestCluster = 5;  // bytes

// The fields of a Darts-clone unit.
constexpr bool has_leaf(std::uint32_t unit) { return ((unit >> 8) & 1) == 1; }
constexpr std::uint32_t value(std::uint32_t unit) { return unit & 0x7FFFFFFFu; }
constexpr std::uint32_t label(std::uint32_t unit) { return unit & 0x800000FFu; }
constexpr std::size_t offset(std::uint32_t unit) { return (unit >> 10) << ((unit & 0x200u) >> 6); }

std::uint32_t read_u32(std::string_view bytes, std::size_t at) {
  std::uint32_t number = 0;
  for (std::size_t i = 0; i < 4; ++i) number |= std::uint32_t{static_cast<unsigned char>(bytes[at + i])} << (8 * i);
  return number;
}

}  // namespace

Result<Charsmap> Charsmap::parse(std::string_view blob, const std::string& file) {
  Charsmap map;
  if (blob.empty()) return map;
  const std::size_t trie_bytes = blob.size() < 4 ? 0 : read_u32(blob, 0);
  if (trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes > blob.size() - 4) {
    return data_corruption(file, "its normalisation table is cut off or damaged");
  }
  map.units_.resize(trie_bytes / 4);
  for (std::size_t i = 0; i < map.units_.size(); ++i) map.units_[i] = read_u32(blob, 4 + 4 * i);
  map.replacements_ = blob.substr(4 + trie_bytes);
  map.replacements_ += '\0';
  return map;
}

const char* Charsmap::find(std::string_view key) const {
  if (units_.empty()) return nullptr;
  std::size_t node = offset(units_[0]);
  for (const char c : key) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte == 0) return nullptr;
    node ^= byte;
    if (node >= units_.size() || label(units_[node]) != byte) return nullptr;
    const std::uint32_t unit = units_[node];
    node ^= offset(unit);
    if (!has_leaf(unit)) continue;
    if (node >= units_.size() || value(units_[node]) >= replacements_.size()) return nullptr;
    return replacements_.data() + value(units_[node]);
  }
  return nullptr;
}

std::string Charsmap::normalize(std::string_view text) const {
  const std::vector<char32_t> points = decode_utf8(text);
  std::string result;
  result.reserve(text.size());
  std::string cluster, single;
  utf8proc_int32_t state = 0;
  for (std::size_t begin = 0; begin < points.size();) {
    cluster.clear();
    append_utf8(cluster, points[begin]);
    std::size_t end = begin + 1;
    while (end < points.size() &&
           !utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(points[end - 1]),
                                             static_cast<utf8proc_int32_t>(points[end]), &state)) {
      append_utf8(cluster, points[end]);
      ++end;
    }
    if (const char* whole = cluster.size() <= kLongestCluster ? find(cluster) : nullptr; whole != nullptr) {
      result += whole;
    } else {
      for (std::size_t i = begin; i < end; ++i) {
        single.clear();
        append_utf8(single, points[i]);
        const char* replacement = find(single);
        result += replacement != nullptr ? std::string_view(replacement) : std::string_view(single);
      }
    }
    begin = end;
  }
  return result;
}

}  // namespace octavo::text
