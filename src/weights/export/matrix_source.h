// A source for tests whose values are given element by element.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tensor/convert.h"
#include "weights/export/tensor_source.h"

namespace octavo::weights::test {

/// One part; every tensor a function of its flat index.
class MatrixSource final : public TensorSource {
 public:
  using Values = std::function<float(std::int64_t index)>;
  explicit MatrixSource(Part part = Part::kTransformer) { parts_.push_back({part, "{}\n", {}}); }

  void add(const std::string& name, const Shape& shape, Values values, DType dtype = DType::kF32) {
    parts_[0].tensors.push_back({name, shape, dtype});
    values_.push_back(std::move(values));
  }
  const std::vector<SourcePart>& parts() const override { return parts_; }
  Status read(std::size_t, std::size_t tensor, std::int64_t begin, std::int64_t count, DType dtype,
              std::byte* out) const override {
    std::vector<float> floats(static_cast<std::size_t>(count));
    for (std::int64_t i = 0; i < count; ++i) floats[static_cast<std::size_t>(i)] = values_[tensor](begin + i);
    // Through the tensor's own type, as a stored tensor is read.
    const DType own = parts_[0].tensors[tensor].dtype;
    std::vector<std::byte> stored(static_cast<std::size_t>(count) * dtype_size(own));
    convert_elements(reinterpret_cast<const std::byte*>(floats.data()), DType::kF32, stored.data(), own, count);
    convert_elements(stored.data(), own, out, dtype, count);
    return {};
  }
  std::vector<float> floats(std::size_t tensor) const {
    std::vector<float> all(static_cast<std::size_t>(parts_[0].tensors[tensor].shape.element_count()));
    const Status status = read(0, tensor, 0, static_cast<std::int64_t>(all.size()), DType::kF32,
                               reinterpret_cast<std::byte*>(all.data()));
    OCTAVO_CHECK(status.ok(), "{}", status.to_string());
    return all;
  }

 private:
  std::vector<SourcePart> parts_;
  std::vector<Values> values_;
};

}  // namespace octavo::weights::test
