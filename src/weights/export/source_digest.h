// One digest for the values of a whole model, whatever layout it lies in.
#pragma once

#include <functional>
#include <string>

#include "weights/export/tensor_source.h"

namespace octavo::weights {

/// Called with the bytes read so far and in all; false ends the work (kCancelled). From one thread at a time.
using DigestProgress = std::function<bool(std::size_t done, std::size_t total)>;

/// 64 hex digits: SHA-256 over the lines "<part>/<canonical name> <dtype> <shape> <SHA-256 of the bytes as stored>\n"
/// of all tensors, in the order of their bytes. Reads every value once, a tensor a thread, in portions. Errors are
/// those of the source.
Result<std::string> digest_source(const TensorSource& source, const DigestProgress& on_progress);

}  // namespace octavo::weights
