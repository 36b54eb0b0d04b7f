// StoredTensor: where the values of a model's tensor lie in the files, and what has to happen to them on the way.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "weights/layouts/name_map.h"
#include "weights/quantization/provenance.h"
#include "weights/safetensors.h"

namespace octavo::weights {

struct StoredTensor {
  const SafetensorsFile* file = nullptr;
  Placement place;                    // place.stored is the file's own name, prefix included
  std::optional<DType> read_as;       // when the file's dtype does not say it: FP8 kept as plain bytes (U8)
  std::optional<float> scale;         // of ComfyUI's scaled FP8: value = stored * scale
  bool not_a_number_is_zero = false;  // T5's FP8 embedding holds NaN codes, which stand for zero (ComfyUI)
  bool codes = false;                 // of a quantised part: scales and what else belongs to them lie beside it
};

/// The tensors of one part under their canonical names.
struct PartSources {
  Part part = Part::kTransformer;
  Layout layout = Layout::kDiffusers;
  NameSizes name_sizes;
  std::string prefix;
  std::map<std::string, StoredTensor, std::less<>> tensors;
  std::vector<std::string> unknown;                  // the file's names that no canonical tensor has
  std::string quantization;                          // "", "FP8", "scaled FP8", or the provenance in words; for people
  std::optional<QuantizationProvenance> provenance;  // of a quantised part

  /// Where a canonical tensor that is not there would lie: the file's own name and shape.
  std::string stored_name(const std::string& canonical) const;
  Shape stored_shape(const std::string& canonical, const Shape& shape) const;
};

/// Looks at the names, not the values (scales of 8-bit layers excepted). `prefix` selects a part of an all-in-one file.
/// kDataCorruption or kInvalidArgument name file and tensor: a scale that is no number, a quantisation that this
/// version does not read, a quantised part that is incomplete or mixed (read_provenance).
Result<PartSources> map_part(Part part, Layout layout, const std::string& prefix,
                             const std::vector<std::shared_ptr<const SafetensorsFile>>& files);

}  // namespace octavo::weights
