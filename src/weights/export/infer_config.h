// config.json of a part that came without one, told from its tensors' names and shapes.
#pragma once

#include <map>
#include <string>

#include "base/status.h"
#include "tensor/tensor.h"
#include "weights/layouts/name_map.h"

namespace octavo::weights {

/// `shapes`: canonical names. What shapes do not tell is as in the released models: 32 groups in the autoencoder's
/// norms, its factors, a default picture of 1024 pixels. kInvalidArgument naming the tensor that is missing or not as
/// in Stable Diffusion 3.5.
Result<std::string> infer_config(Part part, const std::map<std::string, Shape, std::less<>>& shapes);

}  // namespace octavo::weights
