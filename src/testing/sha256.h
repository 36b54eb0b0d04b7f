// SHA-256 (FIPS 180-4): how tests compare large texts and tensors with recordings that hold a digest alone.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace octavo::testing {

/// 64 lower-case hex digits.
std::string sha256_hex(std::span<const std::byte> bytes);
std::string sha256_hex(const std::string& text);

}  // namespace octavo::testing
