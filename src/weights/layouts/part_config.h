// The config.json that a diffusers folder has and a single file has not, from names and shapes.
#pragma once

#include <boost/json/object.hpp>

#include "weights/weight_store.h"

namespace octavo::weights {

/// Keys and values as diffusers and transformers write them. What shapes do not tell is as in Stable Diffusion 3.5
/// (head width 64, the autoencoder's 32 groups and factors, the activations), unless the file's metadata says it
/// (kConfigsMetadata). kDataCorruption when the tensors that tell the sizes are missing or have impossible shapes.
Result<boost::json::object> config_from_shapes(Part part, const WeightStore& weights);

}  // namespace octavo::weights
