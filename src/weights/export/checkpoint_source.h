// CheckpointSource: a checkpoint of any layout as canonical tensors, mapped and read piece by piece, for writing it
// again. Looks at names, shapes and types alone; whether the parts make a model is for the models' loaders to say.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "weights/export/tensor_source.h"
#include "weights/safetensors.h"

namespace octavo::weights {

class CheckpointSource final : public TensorSource {
 public:
  /// `model`: a diffusers folder, a .safetensors file, or a folder of such files. `extra`: parts that are elsewhere, in
  /// files of their own; they replace what the model has. Configurations come from the folder, from the header of this
  /// project's files, or are told from the shapes. kNotFound, kDataCorruption or kInvalidArgument in one line that
  /// names the file or tensor; kFailedPrecondition for files that `octavo quantize` wrote (quantization/provenance.h).
  static Result<std::unique_ptr<CheckpointSource>> open(
      const std::filesystem::path& model, const std::vector<std::pair<Part, std::filesystem::path>>& extra = {});

  const std::vector<SourcePart>& parts() const override { return parts_; }
  Status read(std::size_t part, std::size_t tensor, std::int64_t begin, std::int64_t count, DType dtype,
              std::byte* out) const override;
  void release(std::size_t part, std::size_t tensor) const override;

  bool has_part(Part part) const;
  /// The name of a weight that is stored in FP8 with a scale; empty when there is none. Such a weight can be widened,
  /// and cannot be moved as it is.
  const std::string& scaled_weight() const { return scaled_weight_; }

 private:
  CheckpointSource() = default;

  /// A tensor as a file holds it.
  struct Stored {
    std::shared_ptr<const SafetensorsFile> file;
    const TensorInfo* info = nullptr;
  };
  using StoredPart = std::map<std::string, Stored, std::less<>>;  // by name without prefix
  /// Where the values of a canonical tensor are.
  struct Place {
    Stored stored;  // without a file: an identity matrix, which the released CLIP-L files leave out
    std::int64_t begin = 0;
    bool swap_halves = false;
    float dequant_scale = 1.0f;
    bool scaled = false;
  };
  struct Gathered {
    Part part = Part::kTransformer;
    StoredPart tensors;
    std::string config;  // empty = to be told from the shapes
  };

  static Result<std::vector<Gathered>> gather(const std::filesystem::path& model);
  static Status gather_file(const std::filesystem::path& path, const Part* forced, std::vector<Gathered>& into);
  Status add(Gathered part);
  Status add_tensor(const std::string& canonical, const Shape& shape, Place place);
  void read_run(const Place& place, std::int64_t begin, std::int64_t count, DType dtype, std::byte* out) const;

  std::vector<SourcePart> parts_;
  std::vector<std::vector<Place>> places_;
  std::string scaled_weight_;
};

}  // namespace octavo::weights
