// Latin-1 to UTF-8 and back, for PNG text chunks.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace octavo::image {

/// Nothing when a character does not fit. Requires well-formed UTF-8.
std::optional<std::string> latin1_from_utf8(std::string_view text);

std::string utf8_from_latin1(std::string_view text);

}  // namespace octavo::image
