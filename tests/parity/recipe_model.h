// A checkpoint made from a recorded recipe: what tools/reference/record_models.py gave its models.
#pragma once

#include <filesystem>
#include <string>

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

  /// Adds octavo-tiny's tokenizers and the scheduler of Stable Diffusion 3.5: the folder is a whole pipeline then.
  void add_tokenizers_and_scheduler() const;

  const std::filesystem::path& root() const { return root_; }
  bool has_part(const std::string& name) const;
  weights::CheckpointPart part(const std::string& name) const;

 private:
  std::filesystem::path root_;
};

}  // namespace octavo::parity
