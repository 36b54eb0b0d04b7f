#include "tests/parity/divergence_finder.h"

#include <vector>

#include "testing/expect_close.h"

namespace octavo::parity {

void DivergenceFinder::on_tensor(std::string_view path, const TensorView& value) {
  const std::string name = prefix_ + std::string(path);
  if (!fixture_.contains(name) || !compared_.insert(name).second || !first_divergence_.empty()) return;
  const TensorView recorded = fixture_[name];
  std::vector<float> values = testing::to_floats(value);
  const auto count = static_cast<std::int64_t>(values.size());
  if (recorded.element_count() == (count + kTapStride - 1) / kTapStride && recorded.rank() == 1) {
    for (std::int64_t i = 0; i < recorded.element_count(); ++i) values[i] = values[i * kTapStride];
    values.resize(static_cast<std::size_t>(recorded.element_count()));
  }
  // By values: the recording may keep an extent of one that the engine has not, or the other way round.
  const Shape flat{static_cast<std::int64_t>(values.size())};
  if (recorded.element_count() != flat[0]) {
    first_divergence_ = name + ": shape " + value.shape().to_string() + ", recorded " + recorded.shape().to_string();
    return;
  }
  const auto close =
      testing::expect_close(TensorView(values.data(), DType::kF32, flat), recorded.reshape(flat), testing::kForwardF32);
  if (!close) first_divergence_ = name + ": " + close.message();
}

}  // namespace octavo::parity
