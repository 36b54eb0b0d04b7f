// What the tests of this folder share: a temporary folder, and files built byte by byte, so that they can be wrong.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "weights/safetensors.h"

namespace octavo::weights::test {

/// Removed with all it holds at the end of the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "octavo_weights_XXXXXX").string();
    const char* made = ::mkdtemp(pattern.data());
    OCTAVO_CHECK(made != nullptr, "cannot make a folder like {}", pattern);
    path_ = made;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline void write_text(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream file(path, std::ios::binary);
  file << text;
  OCTAVO_CHECK(file.good(), "cannot write {}", path.string());
}

/// The bytes of a file with this header and `data_bytes` bytes of data.
inline std::string file_bytes(const std::string& header, std::size_t data_bytes) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(static_cast<std::uint64_t>(header.size()) >> (8 * i));
  return bytes + header + std::string(data_bytes, '\x01');
}

inline Result<SafetensorsHeader> parse(const std::string& bytes) {
  return parse_safetensors(std::as_bytes(std::span(bytes.data(), bytes.size())), "weights");
}

/// A file of f32 tensors [count], each filled with `value`.
inline void write_f32(const std::filesystem::path& path, const std::vector<std::string>& names, float value = 1.0f,
                      std::int64_t count = 4) {
  std::filesystem::create_directories(path.parent_path());
  const std::vector<float> data(static_cast<std::size_t>(count), value);
  std::vector<NamedTensor> tensors;
  for (const std::string& name : names) tensors.push_back({name, TensorView(data.data(), DType::kF32, Shape{count})});
  const Status status = write_safetensors(path, tensors);
  OCTAVO_CHECK(status.ok(), "{}", status.to_string());
}

}  // namespace octavo::weights::test
