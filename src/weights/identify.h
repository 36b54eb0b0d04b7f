// What a set of tensors is, told from names and shapes alone: for files without a config.json, and to say a
// checkpoint's released name. Sources of names and sizes: Stability-AI/sd3.5 (mmditx.py, sd3_infer.py), ComfyUI
// (model_detection.py), diffusers (loaders/single_file_utils.py).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "weights/safetensors.h"

namespace octavo::weights {

using TensorMap = std::map<std::string, TensorInfo, std::less<>>;

/// The sizes by which the released MMDiT models differ.
struct MmditSizes {
  std::int64_t layers = 0;
  std::int64_t width = 0;
  std::int64_t position_side = 0;  // patches a side of the position table
  std::int64_t dual_layers = 0;    // blocks with a second attention
  bool qk_norm = false;

  bool operator==(const MmditSizes& other) const = default;
};
inline constexpr MmditSizes kLargeSizes = {38, 2432, 192, 0, true};  // Large and Large Turbo
inline constexpr MmditSizes kMediumSizes = {24, 1536, 384, 13, true};

/// "Stable Diffusion 3.5 Large or Large Turbo (the same shapes)", ..., or "" for sizes that nobody released. Large and
/// Turbo cannot be told apart.
std::string released_name(const MmditSizes& sizes);

/// Tensors of one file that belong together: those under one prefix of the all-in-one layouts, or all.
struct IdentifiedPart {
  std::string prefix;              // "model.diffusion_model.", "first_stage_model.", ..., or ""
  std::string kind;                // "transformer", "vae", "clip_l", "clip_g", "t5", "controlnet", "lora", "unknown"
  std::string description;         // "Stable Diffusion 3.5 Medium, original layout: 24 layers, width 1536, ..."
  std::vector<std::string> names;  // whole, sorted
  std::size_t byte_count = 0;
  bool original = false;  // the names of Stability's and ComfyUI's files; else diffusers'
  bool released = false;  // a text encoder that its names or sizes tell for certain
  bool foreign = false;   // belongs to a model that this engine does not draw with
};

/// The parts of a file, in the order of their prefixes. Every tensor is in exactly one part.
std::vector<IdentifiedPart> identify_parts(const TensorMap& tensors);

}  // namespace octavo::weights
