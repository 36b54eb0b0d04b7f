// A checkpoint made from a recorded recipe: what tools/reference/record_models.py gave its models.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "device/execution_context.h"
#include "tests/parity/fixture.h"
#include "weights/checkpoint.h"

namespace octavo::parity {

/// A diffusers folder in a temporary place, with the parts that the fixture's metadata describes; gone with the object.
class RecipeModel {
 public:
  /// `fixture_name` as for Fixture.
  explicit RecipeModel(const std::string& fixture_name);
  ~RecipeModel();
  RecipeModel(const RecipeModel&) = delete;
  RecipeModel& operator=(const RecipeModel&) = delete;

  bool has_part(const std::string& name) const;
  weights::CheckpointPart part(const std::string& name) const;

 private:
  std::filesystem::path root_;
};

/// Compares what passes the taps with the fixture's tensors of the same names, in order, and remembers the first that
/// is too far away: where a model begins to differ from its reference.
class DivergenceFinder final : public device::TapSink {
 public:
  explicit DivergenceFinder(const Fixture& fixture) : fixture_(fixture) {}
  void on_tensor(std::string_view path, const TensorView& value) override;
  int compared() const { return compared_; }
  /// "" when every tap agreed.
  const std::string& first_divergence() const { return first_divergence_; }

 private:
  const Fixture& fixture_;
  int compared_ = 0;
  std::string first_divergence_;
};

}  // namespace octavo::parity
