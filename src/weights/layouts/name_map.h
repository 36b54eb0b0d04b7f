// Tensor names, layout by layout. The canonical name space is the one that the models' loaders require: the names and
// row orders of the diffusers folder, part by part. The original layout (Stability's files, which ComfyUI reads and
// writes too) differs in the transformer and the autoencoder; text encoders have the same names everywhere.
//
// Pure data and functions of strings, usable in both directions: a loader asks for the canonical names inside a stored
// tensor, a writer for the place of a canonical tensor. Sources: diffusers (scripts/convert_sd3_to_diffusers.py,
// loaders/single_file_utils.py), ComfyUI (utils.py, ops.py).
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/tensor.h"

namespace octavo::weights {

enum class Part { kTransformer, kVae, kTextEncoder, kTextEncoder2, kTextEncoder3 };

/// One row for each part, in the order in which they are listed everywhere.
struct PartNames {
  Part part;
  std::string_view folder;  // "transformer": the folder of the diffusers layout
  std::string_view prefix;  // "model.diffusion_model.": in front of the part's names in an all-in-one file
  std::string_view flag;    // "--clip-l": supplies the part from elsewhere
  std::string_view title;   // "CLIP-L text encoder"
};
inline constexpr std::array<PartNames, 5> kParts = {{
    {Part::kTransformer, "transformer", "model.diffusion_model.", "--model", "transformer"},
    {Part::kVae, "vae", "first_stage_model.", "--vae", "autoencoder"},
    {Part::kTextEncoder, "text_encoder", "text_encoders.clip_l.transformer.", "--clip-l", "CLIP-L text encoder"},
    {Part::kTextEncoder2, "text_encoder_2", "text_encoders.clip_g.transformer.", "--clip-g", "CLIP-G text encoder"},
    {Part::kTextEncoder3, "text_encoder_3", "text_encoders.t5xxl.transformer.", "--t5", "T5 text encoder"},
}};
constexpr const PartNames& names_of(Part part) { return kParts[static_cast<std::size_t>(part)]; }
/// The part of a folder's name; nothing for tokenizers and other folders.
std::optional<Part> part_of_folder(std::string_view folder);

enum class Layout { kDiffusers, kOriginal };

/// What the names of the original layout depend on besides the tensor.
struct NameSizes {
  int blocks = 0;      // of the transformer: the last one's context modulation is stored in another order
  int vae_levels = 4;  // length of block_out_channels: the original numbers the decoder's levels from the other end
};

/// Where the values of a canonical tensor lie in the original layout.
struct Placement {
  std::string stored;  // name, without the part's prefix
  int slice = 0;       // rows [slice, slice + 1) * n of slice_count * n stored rows (q, k, v in one tensor)
  int slice_count = 1;
  bool swap_halves = false;     // stored (shift, scale), canonical (scale, shift): the halves of the rows are exchanged
  bool as_convolution = false;  // stored [out, in, 1, 1], canonical [out, in]
};

/// The place of a canonical tensor; nothing for a name that the layout does not know. Text encoders: the name itself.
std::optional<Placement> placement_in_original(Part part, std::string_view canonical, const NameSizes& sizes);

/// The canonical tensors inside a stored one, in the order of its rows; empty for a name that the layout does not know.
std::vector<std::string> canonical_in_original(Part part, std::string_view stored, const NameSizes& sizes);

/// The shape of the stored tensor that holds a canonical one of this shape, and the other way round: nothing when the
/// stored tensor cannot hold such rows.
Shape shape_in_original(const Shape& canonical, const Placement& place);
std::optional<Shape> shape_from_original(const Shape& stored, const Placement& place);

// FP8 as ComfyUI stores it beside a layer's "<layer>.weight" (github.com/Comfy-Org/ComfyUI: comfy/ops.py,
// comfy/quant_ops.py, QUANTIZATION.md).
inline constexpr std::string_view kScaledFp8Marker = "scaled_fp8";    // old form, once a part: 0 or 2 elements
inline constexpr std::string_view kOldWeightScale = ".scale_weight";  // f32 [] or [1]: weight = stored * scale
inline constexpr std::string_view kOldInputScale = ".scale_input";    // f32, optional, for FP8 products
inline constexpr std::string_view kNewWeightScale = ".weight_scale";
inline constexpr std::string_view kNewInputScale = ".input_scale";
inline constexpr std::string_view kComfyQuant = ".comfy_quant";  // new form: u8 [n], JSON {"format": ...}
inline constexpr std::string_view kQuantizationMetadata = "_quantization_metadata";  // header, JSON {"layers": ...}
inline constexpr std::string_view kSynthesisedMetadata = "octavo.synthesised";  // header, how random weights were made
/// Key of the header's metadata under which this project's files carry, as one JSON object {folder: config.json},
/// what shapes do not tell (group counts, the autoencoder's factors). Files of others do without.
inline constexpr std::string_view kConfigsMetadata = "octavo.configs";

}  // namespace octavo::weights
