// A whole model of random weights without a file, for benches: its tensors are views of a few pools of random numbers,
// one for each spread that SyntheticSource knows (its table says which tensor has which), each tensor from a place of
// its own. Full size takes about a gigabyte of memory and less than a second of all cores, and goes through the same
// loaders as files do. What it draws is noise; tensors of one spread share their numbers.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "weights/layouts/name_map.h"
#include "weights/safetensors.h"
#include "weights/synthesis/family.h"

namespace octavo::weights {

struct PooledPart {
  Part part = Part::kTransformer;
  std::string config;  // config.json
  std::shared_ptr<const SafetensorsFile> file;
};

/// The parts of a model of these sizes, in bf16; the same numbers for the same seed. `name` is what messages call it.
/// kResourceExhausted when there is no memory for the pools.
Result<std::vector<PooledPart>> make_pooled_model(const std::string& name, const ModelSizes& sizes, std::uint64_t seed);

}  // namespace octavo::weights
