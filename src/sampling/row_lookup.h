// Finding a row of the schedule and sampler tables by what users type.
#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

namespace octavo::sampling {

inline std::string ascii_lower(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return lower;
}

/// By name, label or alias, any case; "" = the first row. kInvalidArgument about `subject`, listing the names.
template <typename Row>
Result<const Row*> find_row(std::span<const Row> rows, std::string_view name, const std::string& subject) {
  if (name.empty()) return &rows.front();
  const std::string wanted = ascii_lower(name);
  std::string names;
  for (const Row& row : rows) {
    if (wanted == row.name || wanted == ascii_lower(row.label)) return &row;
    if (std::find(row.aliases.begin(), row.aliases.end(), wanted) != row.aliases.end()) return &row;
    names += (names.empty() ? "" : ", ") + std::string(row.name);
  }
  constexpr std::size_t kShown = 64;  // what a client sent may be long
  return invalid_argument(subject, "unknown " + subject + " '" + std::string(name.substr(0, kShown)) +
                                       (name.size() > kShown ? "..." : "") + "'; use one of: " + names);
}

}  // namespace octavo::sampling
