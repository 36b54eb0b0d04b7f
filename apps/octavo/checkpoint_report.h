// CheckpointReport: what `octavo inspect` found, as plain values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"
#include "weights/layouts/name_map.h"
#include "weights/quantization/provenance.h"

namespace octavo::app {

struct TensorReport {
  std::string name;
  std::string dtype;  // the file's word
  Shape shape;
  std::size_t byte_count = 0;
};

/// A model part, a tokenizer or the scheduler.
struct PartReport {
  std::string name;         // "transformer"
  std::string class_name;   // "SD3Transformer2DModel"; empty for a part of a single file
  std::string description;  // sizes, in words
  std::vector<std::string> files;
  std::vector<TensorReport> tensors;
  std::optional<weights::QuantizationProvenance> quantization;  // of what `octavo quantize` wrote
  std::size_t quantized_layers = 0;                             // weights in 8 bits, where `quantization` is

  std::int64_t parameter_count() const;
  std::size_t byte_count() const;
  std::map<std::string, std::size_t> tensors_by_dtype() const;
};

struct CheckpointReport {
  std::filesystem::path path;
  std::string layout;  // "diffusers folder", "safetensors file", "folder of safetensors files"
  std::string model;   // "Stable Diffusion 3.5 Medium"; empty when it is none that was released
  std::vector<PartReport> parts;
  std::vector<std::string> problems;  // each a line that names part, file or tensor
  std::vector<std::string> notes;     // not wrong, but worth knowing
  std::set<weights::Part> found;      // in files that are no diffusers folder
};

/// Reads the checkpoint without taking memory for it: headers, configurations, names and shapes against what the models
/// expect, sizes of parts against each other, tokenizer files and, when `read_values`, every value for NaN and
/// infinity. What is wrong inside lands in `problems`; an error means that the path holds no checkpoint at all.
Result<CheckpointReport> inspect_checkpoint(const std::filesystem::path& path, bool read_values);

}  // namespace octavo::app
