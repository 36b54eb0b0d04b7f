// The fastest plan of a graph on this GPU, found by timing and remembered.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "device/cuda/cuda_device.h"
#include "device/cuda/cudnn_graph.h"

namespace octavo::device::cuda {

/// What a plan must have beside being fast. Every plan is deterministic.
struct CudnnDemands {
  /// f32 products are not rounded to fewer bits.
  bool exact_products = false;
};

/// The plan of the graph that `describe` gives, which `key` names within the program. At the first call with a key
/// every config is timed on memory of its own, once for this kind of GPU: the choice is kept in the cache folder. Later
/// calls only look it up. Throws CheckFailure when cuDNN cannot compute the graph here. Not during a capture, at first.
std::shared_ptr<const CudnnPlan> choose_plan(CudaDevice& device, const std::string& key,
                                             const std::function<CudnnGraph()>& describe, CudnnDemands demands = {});

}  // namespace octavo::device::cuda
