// UTF-8 checks shared by everything that takes text from outside.
#pragma once

#include <string>
#include <string_view>

namespace octavo {

/// Well-formed UTF-8 (Unicode 15, table 3-7): no overlong forms, no surrogates, nothing over U+10FFFF.
bool is_valid_utf8(std::string_view text);

/// Text that JSON can hold: as it is when it is well-formed, else with a question mark for every byte beyond ASCII
/// (names of files may be any bytes).
std::string printable(std::string_view text);

}  // namespace octavo
