// A file of low-rank updates (LoRA, Hu et al., arXiv:2106.09685): for a module with the weight W [N, K],
//   W' = W + strength * scale * up * down,   down [r, K], up [N, r],
// as trainers write them for Stable Diffusion 3.5. Names and what they mean: lora_names.h.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "weights/safetensors.h"

namespace octavo::weights {

/// The pair of one module.
struct LoraModule {
  std::string name;            // the file's own: "transformer.transformer_blocks.0.attn.to_q"
  TensorView down;             // [r, K], f32 | f16 | bf16, in the mapped file, at any address
  TensorView up;               // [N, r], likewise; axes of size 1 behind it and patch axes of `down` are folded away
  std::optional<float> alpha;  // of a tensor <name>.alpha
};

class LoraFile {
 public:
  /// Only pairs of matrices are taken. kNotFound, kDataCorruption (half a pair, ranks that differ, NaN) or
  /// kInvalidArgument (another kind of update: DoRA, LoHa, LoKr, whole differences; not a single pair), naming file and
  /// key and saying what to do.
  static Result<LoraFile> open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_->path(); }
  const std::vector<LoraModule>& modules() const { return modules_; }  // by name
  /// Keys that are no half of a pair.
  const std::vector<std::string>& unknown() const { return unknown_; }
  /// What `scale` is for a module of a component ("transformer", "text_encoder"): alpha / r by the module's own alpha;
  /// else by what diffusers and peft write into the header (lora_adapter_metadata: lora_alpha, alpha_pattern,
  /// use_rslora); else 1. An alpha of zero counts as none (as in ComfyUI). kInvalidArgument when the header says DoRA.
  Result<float> scale_of(const LoraModule& module, std::string_view component, std::string_view layer) const;

 private:
  LoraFile() = default;
  std::shared_ptr<const SafetensorsFile> file_;
  std::vector<LoraModule> modules_;
  std::vector<std::string> unknown_;
};

}  // namespace octavo::weights
