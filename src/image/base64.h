// Base64 (RFC 4648 section 4, padded), as pictures travel in JSON.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace octavo::image {

std::string base64_encode(std::span<const std::uint8_t> bytes);

/// Strict: no white space, no missing padding, unused bits zero. kInvalidArgument otherwise.
Result<std::vector<std::uint8_t>> base64_decode(std::string_view text);

}  // namespace octavo::image
