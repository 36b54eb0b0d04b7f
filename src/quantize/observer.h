// Observer: listens to the inputs of products on the taps of a running transformer and adds to Statistics.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "device/execution_context.h"
#include "quantize/statistics.h"

namespace octavo::quantize {

/// Every forward of the transformer is a step of the current prompt; row r of a batch is branch r. What it adds depends
/// on the tensors alone, not on threads. One thread at a time.
class Observer final : public device::TapSink {
 public:
  /// `label`: the part's, before the dots. The statistics outlive the observer.
  Observer(const std::string& label, const device::DeviceTraits& traits, const std::vector<Site>& sites,
           Statistics& statistics);
  /// The forwards from here on belong to this prompt, from its first step on.
  void begin_prompt(std::int64_t prompt);
  std::int64_t finished_steps() const { return step_; }
  void on_tensor(std::string_view path, const TensorView& value) override;

 private:
  void count(InputStatistics& input, const TensorView& value, std::int64_t branch);
  void sample(InputStatistics& input, const TensorView& value, std::int64_t branch) const;

  const device::DeviceTraits& traits_;
  Statistics& statistics_;
  std::string velocity_tap_;
  std::map<std::string, InputStatistics*, std::less<>> inputs_;  // by tap
  std::int64_t prompt_ = 0;
  std::int64_t step_ = 0;
};

}  // namespace octavo::quantize
