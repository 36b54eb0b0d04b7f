// What was found out by measuring, kept between runs: which algorithm is fastest for which product.
//
// A file belongs to one identity (library version and GPU): choices of another one are of no use and may be harmful.
// It ends in a digest, so that a file that is cut, damaged or of another format holds no choices at all. Several
// processes may use one: it is replaced whole; of two that add at once one may lose its choices and measures again.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "base/status.h"

namespace octavo::ops {

/// Opaque bytes to opaque bytes.
using Choices = std::map<std::string, std::string>;

/// What `path` holds for `identity`; nothing when there is no such file or it is not whole.
Choices read_choices(const std::filesystem::path& path, std::string_view identity);

/// Adds to what the file holds for `identity`, replacing those of equal keys.
Status add_choices(const std::filesystem::path& path, std::string_view identity, const Choices& choices);

}  // namespace octavo::ops
