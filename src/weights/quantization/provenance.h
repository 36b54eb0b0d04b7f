// What a checkpoint of 8-bit weights says of itself, and whether its tensors are what it says.
//
// A quantised part is a part of a diffusers folder in which some layers X have, instead of a weight of 16 bits,
//   X.weight            F8_E4M3 | F8_E5M2 | I8 [N, K]   codes; the real weight is code * scale
//   X.weight_scale      F32 [1] | [N, 1] | [N, ceil(K / 128)]   one scale, one a channel, one a block of 128 inputs
// and, where they are of use,
//   X.input_scale       F32 [1]   the scale of a static input; present exactly where the layer's input is static
//   X.input_multiplier  F32 [K]   multiplies the input first (smoothing that no other layer could take)
//   X.outlier_index     I32 [k], ascending, and X.outlier_weight BF16 [N, k]: inputs that stay in 16 bits; their
//   columns
//                       of X.weight are zero
// The header's metadata of every file of the part holds, under "octavo.quantization", one JSON object:
//   {"format_version": 1, "tool": "octavo 1.2.3", "source": {"hash": "<sha256>", "model": "name", ...},
//    "calibration": {...} | null, "recipe": {"format": "e4m3", "activation_format": "e4m3", "weights": "channel", ...},
//    "activations_default": "token", "activation_exceptions": {"<layer>": "none"}, "layers_hash": "<sha256>"}
// Its text is the same in every file of one run and in no file of another: that is how a mixture is told.
#pragma once

#include <boost/json/object.hpp>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tensor/dtype.h"
#include "weights/safetensors.h"

namespace octavo::weights {

inline constexpr std::string_view kProvenanceMetadata = "octavo.quantization";
inline constexpr std::string_view kInputMultiplier = ".input_multiplier";
inline constexpr std::string_view kOutlierIndex = ".outlier_index";
inline constexpr std::string_view kOutlierWeight = ".outlier_weight";
inline constexpr std::int64_t kProvenanceVersion = 1;

/// How a quantised layer gets its input into 8 bits. The words of the file: "token", "static", "block", "none".
enum class ActivationForm { kToken, kStatic, kBlock, kNone };
std::string_view activation_form_word(ActivationForm form);
std::optional<ActivationForm> parse_activation_form(std::string_view word);

struct QuantizationProvenance {
  std::string tool;            // "octavo 1.2.3"
  boost::json::object source;  // "hash": SHA-256 of the 16-bit model, "model": its name, "loras" that were merged
  std::optional<boost::json::object> calibration;  // nothing: no activation was measured
  boost::json::object recipe;                      // what was asked for
  DType activation_format = DType::kE4M3;          // of the inputs that become 8 bits
  ActivationForm activations = ActivationForm::kToken;
  std::map<std::string, ActivationForm, std::less<>> exceptions;  // layers that differ from `activations`
  std::string layers_hash;                                        // SHA-256 of what was decided layer by layer

  ActivationForm activations_of(std::string_view layer) const;
  /// One line for people: "E4M3 weights, one scale a channel, activations token, ... from <model>, octavo 1.2.3".
  std::string in_words() const;
};

/// The text of the metadata.
std::string provenance_text(const QuantizationProvenance& provenance);
/// kDataCorruption naming `file` and the member that is missing or not what it should be; kInvalidArgument when the
/// format_version is newer than this program.
Result<QuantizationProvenance> parse_provenance(std::string_view text, const std::string& file);

/// Provenance of the files of one part: nothing when none of them has it. kDataCorruption naming the files when they
/// come from different runs or only some have it, or the file and tensor when codes and what belongs to them are not
/// complete: a scale without its weight, a weight without its scale, a wrong shape or type, a scale that is no positive
/// number, outliers that are not ascending.
Result<std::optional<QuantizationProvenance>> read_provenance(
    const std::vector<std::shared_ptr<const SafetensorsFile>>& files);

}  // namespace octavo::weights
