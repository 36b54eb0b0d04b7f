// What `octavo inspect` says of a picture: its format and size, and the parameters it was made with.
#pragma once

#include <string>

namespace octavo::app {

/// The file begins like one of the formats that are read.
bool is_picture(const std::string& path);

/// Prints the report, as text or JSON. Returns the exit status: 0, or 2 when the picture cannot be read.
int report_picture(const std::string& path, bool json);

/// Words of a file may hold control characters, which a terminal would obey: each becomes a question mark.
std::string printable(std::string text);

}  // namespace octavo::app
