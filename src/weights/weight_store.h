// WeightStore: the tensors of one model part, taken by canonical name with the shape the model expects, from files of
// any layout. What lies in a file as the model wants it is a view of the mapping; rows in another order and FP8 are
// copied and changed when they are taken. FP8 becomes bf16, in which every E4M3 and E5M2 value is exact; with a scale,
// the product is made in f32 and rounded to bf16 once. The codes of a quantised part can be taken as they are.
//
// A model's constructor calls require() for every tensor it has, then finish(). Problems are collected, not thrown
// one by one: finish() names every missing, mis-shaped, mistyped, NaN-carrying and unused tensor in one message, by
// the names that the file itself has.
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
#include "weights/layouts/stored_tensor.h"
#include "weights/quantization/quantized_weight.h"

namespace octavo::weights {

/// Index of the first NaN or infinity of an f32, f16, bf16, e4m3 or e5m2 tensor, contiguous, at any address; nothing
/// for other dtypes.
std::optional<std::int64_t> first_not_finite(const TensorView& view);

/// Views point into the mapped files, which the store keeps alive. One thread at a time.
class WeightStore {
 public:
  /// `label` names the part in messages ("transformer"); later files must not repeat a name. Names are taken as they
  /// are.
  static Result<WeightStore> open(std::string label, std::vector<std::shared_ptr<const SafetensorsFile>> files);
  /// `sources` as map_part() made them from the same files.
  static WeightStore open(std::string label, std::vector<std::shared_ptr<const SafetensorsFile>> files,
                          PartSources sources);

  WeightStore(WeightStore&&) = default;
  WeightStore& operator=(WeightStore&&) = default;

  /// From here on require() and optional() compare names, shapes and dtypes for finish() and give undefined views, so
  /// that a model's loader runs without reading a value or taking memory (`octavo inspect`). Values are not scanned.
  void check_only() { check_only_ = true; }

  /// The tensor, f32 | f16 | bf16 (FP8 as bf16), or an undefined view when it is missing or wrong (recorded for
  /// finish()).
  TensorView require(const std::string& name, const Shape& shape);
  /// True when `layer` (a name without ".weight") is stored as codes of a quantised part.
  bool is_quantized(const std::string& layer) const;
  /// The codes of such a layer as they lie in the file, with what belongs to them, instead of require(). Nothing when
  /// the shape is wrong (recorded for finish()) or only checked.
  std::optional<QuantizedWeight> require_quantized(const std::string& layer, const Shape& shape);
  /// Undefined without complaint when the name does not exist; wrong shapes are still recorded.
  TensorView optional(const std::string& name, const Shape& shape);
  /// Stands in for a tensor that the file leaves out because it is the same in every model (CLIP-L's projection, an
  /// identity); contiguous f32 | f16 | bf16, owned by the store. Does nothing when the file has the name.
  void supply_identity(const std::string& name, std::int64_t side);
  bool contains(const std::string& name) const;
  /// The shape as the model sees it, for detection; nullptr when there is no such name.
  const Shape* shape_of(const std::string& name) const;
  /// The file's word ("BF16", "F8_E4M3") for a tensor that exists.
  std::string stored_dtype(const std::string& name) const;
  /// Names that are allowed to stay unused ("text_model.embeddings.position_ids").
  void ignore(const std::string& name);
  std::vector<std::string> names() const;
  /// Up to `count` stored bytes of a tensor that exists (of its rows alone, if the file joins it with others): what a
  /// fingerprint reads.
  std::span<const std::byte> first_bytes(const std::string& name, std::size_t count) const;

  /// ok, or kDataCorruption/kNotFound whose message lists (at most 12 a kind, then a count) what is missing, wrong
  /// and unused. Also looks through every taken tensor for NaN and infinity, naming tensor and first index; parts
  /// over `scan_limit_bytes` are not scanned, because reading 16 GB before the first picture costs more than it saves
  /// (the pipeline's own NaN check still names the step).
  Status finish(std::size_t scan_limit_bytes = std::size_t{2} << 30);

  /// Stored bytes of this part; less than the files' when they hold other parts too.
  std::size_t byte_count() const;
  /// "", "FP8", "scaled FP8", or what a quantised part says of itself; for people.
  const std::string& quantization() const { return sources_.quantization; }
  /// Nothing unless the part is a quantised one.
  const std::optional<QuantizationProvenance>& provenance() const { return sources_.provenance; }
  const std::string& label() const { return label_; }
  /// The name that the file has, or would have, for a canonical tensor.
  std::string own_name(const std::string& name) const;
  const std::vector<std::shared_ptr<const SafetensorsFile>>& files() const { return files_; }

 private:
  WeightStore() = default;
  struct Entry {
    Shape shape;           // as the model sees it
    bool possible = true;  // false: the stored rows cannot be what the layout says they are
    StoredTensor source;   // file == nullptr: `owned` values
    TensorView owned;
    bool used = false;
    bool ignored = false;
  };
  TensorView take(const std::string& name, Entry& entry, const Shape& shape);
  /// Records a shape that the model does not expect.
  bool has_shape(const std::string& name, const Entry& entry, const Shape& shape);
  QuantizedWeight read_codes(const std::string& layer, const Entry& entry);
  /// A copy of a tensor that lies beside codes; undefined when there is none.
  TensorView copy_beside(const std::string& name);
  /// The stored rows of an entry.
  std::span<const std::byte> stored_bytes(const Entry& entry) const;
  std::byte* allocate(std::size_t byte_count);
  std::string label_;
  bool check_only_ = false;
  PartSources sources_;  // its tensors have moved to entries_
  std::map<std::string, Entry, std::less<>> entries_;
  std::vector<std::string> missing_;
  std::vector<std::string> wrong_;
  std::vector<std::pair<std::string, TensorView>> taken_;  // for the scan of finish()
  std::vector<std::shared_ptr<const SafetensorsFile>> files_;
  std::vector<std::unique_ptr<std::byte[]>> changed_;  // tensors that no file holds as the model wants them
};

}  // namespace octavo::weights
