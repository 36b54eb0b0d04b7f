// WeightStore: the tensors of one model part, taken by name with the shape the model expects.
//
// A model's constructor calls require() for every tensor it has, then finish(). Problems are collected, not thrown
// one by one: finish() names every missing, mis-shaped, mistyped, NaN-carrying and unused tensor in one message.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"

namespace octavo::weights {

class SafetensorsFile;

/// Index of the first NaN or infinity of an f32, f16 or bf16 tensor, contiguous, at any address; nothing for other
/// dtypes.
std::optional<std::int64_t> first_not_finite(const TensorView& view);

/// Views point into the mapped files, which the store keeps alive. One thread at a time.
class WeightStore {
 public:
  /// `label` names the part in messages ("transformer"); later files must not repeat a name.
  static Result<WeightStore> open(std::string label, std::vector<std::shared_ptr<const SafetensorsFile>> files);

  WeightStore(WeightStore&&) = default;
  WeightStore& operator=(WeightStore&&) = default;

  /// From here on require() and optional() compare names, shapes and dtypes for finish() and give undefined views, so
  /// that a model's loader runs without reading a value or taking memory (`octavo inspect`). Values are not scanned.
  void check_only() { check_only_ = true; }

  /// The tensor, f32 | f16 | bf16, or an undefined view when it is missing or wrong (recorded for finish()).
  TensorView require(const std::string& name, const Shape& shape);
  /// Undefined without complaint when the name does not exist; wrong shapes are still recorded.
  TensorView optional(const std::string& name, const Shape& shape);
  bool contains(const std::string& name) const;
  /// The stored shape, for detection; nullptr when there is no such name.
  const Shape* shape_of(const std::string& name) const;
  /// Names that are allowed to stay unused ("text_model.embeddings.position_ids").
  void ignore(const std::string& name);
  std::vector<std::string> names() const;
  /// Up to `count` stored bytes of a tensor that exists: what a fingerprint reads.
  std::span<const std::byte> first_bytes(const std::string& name, std::size_t count) const;

  /// ok, or kDataCorruption/kNotFound whose message lists (at most 12 a kind, then a count) what is missing, wrong
  /// and unused. Also looks through every taken tensor for NaN and infinity, naming tensor and first index; parts
  /// over `scan_limit_bytes` are not scanned, because reading 16 GB before the first picture costs more than it saves
  /// (the pipeline's own NaN check still names the step).
  Status finish(std::size_t scan_limit_bytes = std::size_t{2} << 30);

  std::size_t byte_count() const;
  const std::vector<std::shared_ptr<const SafetensorsFile>>& files() const { return files_; }

 private:
  WeightStore() = default;
  struct Entry {
    Shape shape;
    std::string dtype;  // the file's word
    const SafetensorsFile* file = nullptr;
    bool used = false;
    bool ignored = false;
  };
  TensorView take(const std::string& name, Entry& entry, const Shape& shape);
  std::string label_;
  bool check_only_ = false;
  std::map<std::string, Entry, std::less<>> entries_;
  std::vector<std::string> missing_;
  std::vector<std::string> wrong_;
  std::vector<std::pair<std::string, TensorView>> taken_;  // for the scan of finish()
  std::vector<std::shared_ptr<const SafetensorsFile>> files_;
  std::vector<std::unique_ptr<std::byte[]>> realigned_;  // copies of tensors that the file stores at odd addresses
};

}  // namespace octavo::weights
