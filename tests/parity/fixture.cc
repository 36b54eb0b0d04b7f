#include "tests/parity/fixture.h"

#include <filesystem>

namespace octavo::parity {

Fixture::Fixture(const std::string& name) {
  const auto path = std::filesystem::path(OCTAVO_SOURCE_DIR) / "tests/parity/fixtures" / name;
  auto file = weights::SafetensorsFile::open(path);
  OCTAVO_CHECK(file.ok(), "{}", file.status().to_string());
  file_ = *std::move(file);
}

const std::string& Fixture::metadata(const std::string& key) const {
  const auto found = file_->metadata().find(key);
  OCTAVO_CHECK(found != file_->metadata().end(), "{} has no metadata {}", file_->path().string(), key);
  return found->second;
}

bool Fixture::contains(const std::string& tensor) const { return file_->tensors().contains(tensor); }

TensorView Fixture::operator[](const std::string& tensor) const {
  const auto found = file_->tensors().find(tensor);
  OCTAVO_CHECK(found != file_->tensors().end(), "{} has no tensor {}", file_->path().string(), tensor);
  auto view = file_->view(found->second);
  OCTAVO_CHECK(view.ok(), "{}", view.status().to_string());
  return *view;
}

}  // namespace octavo::parity
