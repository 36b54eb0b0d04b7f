// Recorded tensors of tests/parity/fixtures/.
#pragma once

#include <memory>
#include <string>

#include "tensor/tensor.h"
#include "weights/safetensors.h"

namespace octavo::parity {

/// One recorded file, opened read-only. Every failure is a CheckFailure: a fixture is part of the program.
class Fixture {
 public:
  /// `name` is relative to the fixtures folder: "ops/norm.safetensors".
  explicit Fixture(const std::string& name);

  /// An entry of the file's metadata.
  const std::string& metadata(const std::string& key) const;
  bool contains(const std::string& tensor) const;
  /// Valid while the fixture lives; must not be written to.
  TensorView operator[](const std::string& tensor) const;

 private:
  std::shared_ptr<const weights::SafetensorsFile> file_;
};

}  // namespace octavo::parity
