// Module names of LoRA files, by the layers of a model. Spellings (github.com/Comfy-Org/ComfyUI comfy/lora.py, kohya-ss
// sd-scripts networks/lora_sd3.py, diffusers loaders/lora_pipeline.py):
//   transformer.X, X, base_model.model.X     X a canonical layer: diffusers and peft
//   lora_unet_O                              O the original layout's layer with "_" for ".": kohya
//   lora_transformer_X, lycoris_X            X with "_" for ".": OneTrainer, SimpleTuner
//   diffusion_model.O, O                     generic
//   text_encoder.X, text_encoder_2.X, text_encoder_3.X; lora_te1_X, lora_te2_X, lora_te3_X with "_" for "."
// In the original layout one module may be three layers (q, k and v are rows of it), or a layer with its halves
// exchanged.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "weights/export/tensor_source.h"

namespace octavo::weights {

/// A layer behind a module's name.
struct LoraTarget {
  std::size_t part = 0;
  std::size_t tensor = 0;  // its weight
  int slice = 0;           // of `slices` equal runs of the module's rows, the layer's
  int slices = 1;
  bool swap_halves = false;  // the layer's first half is the module's second
};

/// Every name under which a file may mean a layer of this model; the targets of a name in the order of their slices.
std::map<std::string, std::vector<LoraTarget>, std::less<>> lora_names(const std::vector<SourcePart>& parts);

/// What the model is called whose LoRA has a module of this name: "Stable Diffusion XL", "Flux"; empty when unknown.
std::string foreign_model(std::string_view module);

}  // namespace octavo::weights
