// For tests: the pictures that tools/reference/record_images.py recorded, and what other libraries make of them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "base/check.h"
#include "image/image.h"

namespace octavo::image {

inline std::vector<std::uint8_t> recorded_file(const std::string& name) {
  const std::string path = std::string(OCTAVO_SOURCE_DIR "/tests/parity/fixtures/images/") + name;
  std::ifstream file(path, std::ios::binary);
  OCTAVO_CHECK(file.good(), "{} cannot be read", path);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct Recorded {
  std::vector<std::string> words;  // what the line says before the size
  Image expected;
};

/// All of `name`.txt and `name`.raw; each line begins with `word_count` words.
inline std::vector<Recorded> recorded_table(const std::string& name, std::size_t word_count) {
  const auto text = recorded_file(name + ".txt"), raw = recorded_file(name + ".raw");
  std::istringstream lines(std::string(text.begin(), text.end()));
  std::vector<Recorded> rows;
  std::size_t at = 0;
  for (;;) {
    Recorded row;
    row.words.resize(word_count);
    for (std::string& word : row.words) lines >> word;
    if (!(lines >> row.expected.width >> row.expected.height >> row.expected.channels)) break;
    const std::size_t size = row.expected.byte_count();
    OCTAVO_CHECK(at + size <= raw.size(), "{}.raw is too short", name);
    row.expected.pixels.assign(raw.begin() + static_cast<std::ptrdiff_t>(at),
                               raw.begin() + static_cast<std::ptrdiff_t>(at + size));
    at += size;
    rows.push_back(std::move(row));
  }
  OCTAVO_CHECK(at == raw.size() && rows.size() > 30, "{}.txt and {}.raw disagree", name, name);
  return rows;
}

/// The largest difference of two values; 256 when the pictures are of different sizes.
inline int largest_difference(const Image& a, const Image& b) {
  if (a.width != b.width || a.height != b.height || a.channels != b.channels || a.pixels.size() != b.pixels.size()) {
    return 256;
  }
  int worst = 0;
  for (std::size_t i = 0; i < a.pixels.size(); ++i) worst = std::max(worst, std::abs(a.pixels[i] - b.pixels[i]));
  return worst;
}

}  // namespace octavo::image
