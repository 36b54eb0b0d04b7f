// DivergenceFinder: where a model begins to differ from its reference.
#pragma once

#include <set>
#include <string>

#include "device/execution_context.h"
#include "tests/parity/fixture.h"

namespace octavo::parity {

/// Compares what passes the taps with the fixture's tensors of the same names, in order, and remembers the first that
/// is too far away (kForwardF32). A tap that fires again is not looked at: a recording holds one pass.
///
/// A recording may be thinned (tools/reference/taps.py): every kTapStride-th value of the flattened tensor.
class DivergenceFinder final : public device::TapSink {
 public:
  static constexpr std::int64_t kTapStride = 61;

  /// Taps are looked up as `prefix` + path.
  explicit DivergenceFinder(const Fixture& fixture, std::string prefix = "")
      : fixture_(fixture), prefix_(std::move(prefix)) {}
  void on_tensor(std::string_view path, const TensorView& value) override;
  int compared() const { return static_cast<int>(compared_.size()); }
  /// The tap's path and how far it is; "" when every tap agreed.
  const std::string& first_divergence() const { return first_divergence_; }

 private:
  const Fixture& fixture_;
  std::string prefix_;
  std::set<std::string, std::less<>> compared_;
  std::string first_divergence_;
};

}  // namespace octavo::parity
