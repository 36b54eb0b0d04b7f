// A recipe as the plan of a checkpoint: which tensors become codes, what stands in the files' metadata and in
// transformer/quantization.json. Nothing is read or written here; weights/export/export.h carries the plan out.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "quantize/recipe.h"
#include "weights/export/export_plan.h"
#include "weights/quantization/provenance.h"

namespace octavo::quantize {

/// Where the weights come from; goes into the provenance.
struct SourceRecord {
  std::string model;               // name for people: the last component of its path
  std::string hash;                // weights::digest_source() of the 16-bit model
  std::vector<std::string> loras;  // "<file> <strength> <sha256>", in the order of merging
};

struct QuantizedCheckpoint {
  std::string tool;  // "octavo 1.2.3"
  SourceRecord source;
  const Recipe* recipe = nullptr;  // of every Linear of the transformer
  /// What a layer's input has to be multiplied with while running, [K] or empty (FoldedSource::multiplier); nothing
  /// when the recipe has no smoothing.
  std::function<std::vector<float>(std::string_view layer)> multiplier;
  bool quantize_t5 = true;                      // its Linears weight-only, E4M3, one scale a channel
  std::size_t shard_bytes = 0;                  // as ExportOptions
  std::map<std::string, std::string> metadata;  // of every file, as ExportOptions
};

/// The plan of a diffusers folder whose values `parts` has, smoothing already in them. kInvalidArgument when a layer of
/// the recipe is no matrix of the transformer, or is static and has no static_amax.
Result<weights::ExportPlan> plan_quantized_checkpoint(const std::vector<weights::SourcePart>& parts,
                                                      const QuantizedCheckpoint& checkpoint);

/// Parts with their bytes before and after, in the order of the folder; then the total.
struct PartSize {
  std::string part;  // "transformer"
  std::size_t before = 0;
  std::size_t after = 0;
};
std::vector<PartSize> part_sizes(const std::vector<weights::SourcePart>& parts, const weights::ExportPlan& plan);

/// kFailedPrecondition naming `model` and a tensor when a weight of a Linear is in 8 bits already: that would round
/// twice, and with other scales.
Status check_not_quantized(const std::vector<weights::SourcePart>& parts, const std::string& model);

}  // namespace octavo::quantize
