// TensorSource: a whole model as canonical tensors (layouts/name_map.h), read piece by piece. What a writer of
// checkpoints takes its values from: made up (synthesis/), or another checkpoint (export/checkpoint_source.h).
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"
#include "weights/layouts/name_map.h"

namespace octavo::weights {

struct SourceTensor {
  std::string name;  // canonical, without prefix
  Shape shape;
  DType dtype = DType::kF32;  // how it is stored; what is kept when nobody asks for another
};

struct SourcePart {
  Part part = Part::kTransformer;
  std::string config;  // config.json of the diffusers layout
  std::vector<SourceTensor> tensors;
};

class TensorSource {
 public:
  virtual ~TensorSource() = default;
  virtual const std::vector<SourcePart>& parts() const = 0;
  /// Elements [begin, begin + count) of parts()[part].tensors[tensor], row by row, as `dtype` into `out`. The bytes are
  /// unchanged when `dtype` is the tensor's own. From several threads at once.
  virtual Status read(std::size_t part, std::size_t tensor, std::int64_t begin, std::int64_t count, DType dtype,
                      std::byte* out) const = 0;
  /// The tensor will not be read again soon: a mapped file may let go of its pages.
  virtual void release(std::size_t /*part*/, std::size_t /*tensor*/) const {}
};

}  // namespace octavo::weights
