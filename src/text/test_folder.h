// What the tests of this folder share: octavo-tiny's tokenizers, and copies of them that may be broken.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "base/check.h"

namespace octavo::text::test {

inline std::filesystem::path model_folder(const std::string& name) {
  return std::filesystem::path(OCTAVO_SOURCE_DIR) / "models/octavo-tiny" / name;
}

inline std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  OCTAVO_CHECK(file.good(), "cannot read {}", path.string());
  return text.str();
}

/// A copy of one of octavo-tiny's tokenizer folders; gone with the object.
class FolderCopy {
 public:
  explicit FolderCopy(const std::string& name) {
    std::string pattern = (std::filesystem::temp_directory_path() / "octavo_text_XXXXXX").string();
    const char* made = ::mkdtemp(pattern.data());
    OCTAVO_CHECK(made != nullptr, "cannot make a folder like {}", pattern);
    path_ = made;
    std::filesystem::copy(model_folder(name), path_);
  }
  ~FolderCopy() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  FolderCopy(const FolderCopy&) = delete;
  FolderCopy& operator=(const FolderCopy&) = delete;

  const std::filesystem::path& path() const { return path_; }
  void write(const std::string& file, const std::string& bytes) const {
    std::ofstream(path_ / file, std::ios::binary) << bytes;
  }
  void remove(const std::string& file) const { std::filesystem::remove(path_ / file); }

 private:
  std::filesystem::path path_;
};

}  // namespace octavo::text::test
