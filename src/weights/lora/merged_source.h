// MergedSource: a model with LoRAs in its weights, made while it is read.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "weights/export/tensor_source.h"
#include "weights/lora/lora_file.h"
#include "weights/lora/lora_names.h"

namespace octavo::weights {

struct LoraStrength {
  std::filesystem::path path;
  float strength = 1.0f;
};

/// Every weight that an update names is W + the sum of the updates, in f32, rounded once to what is asked for; all else
/// is the base's, bytes unchanged. Reading makes the product of the rows that are read: from several threads at once.
class MergedSource final : public TensorSource {
 public:
  /// The base must outlive it. Refused with kInvalidArgument naming file and key: a shape that is not the model's (the
  /// first such key), a module that the model has not (all of them, up to a dozen), a part that the model lacks.
  /// Nothing is left out silently.
  static Result<std::unique_ptr<MergedSource>> create(const TensorSource& base, const std::vector<LoraStrength>& loras);

  const std::vector<SourcePart>& parts() const override { return base_.parts(); }
  Status read(std::size_t part, std::size_t tensor, std::int64_t begin, std::int64_t count, DType dtype,
              std::byte* out) const override;
  void release(std::size_t part, std::size_t tensor) const override { base_.release(part, tensor); }

  /// How many weights change.
  std::size_t changed_count() const { return updates_.size(); }

 private:
  /// Rows of a pair that belong to one weight.
  struct Update {
    TensorView down;       // [r, K]
    TensorView up;         // [N, r], the weight's rows, in its order (first half, then the second)
    TensorView up_second;  // undefined, or the second half of the rows
    float scale = 1.0f;
  };
  explicit MergedSource(const TensorSource& base) : base_(base) {}
  Status add(const LoraFile& file, float strength);
  static void add_rows(const Update& update, const Shape& shape, std::int64_t begin, std::int64_t count, float* delta);

  const TensorSource& base_;
  std::vector<LoraFile> files_;  // hold the mapped pairs
  std::map<std::pair<std::size_t, std::size_t>, std::vector<Update>> updates_;
};

}  // namespace octavo::weights
