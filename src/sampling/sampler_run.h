// SamplerRun: a state on a device, advanced one step at a time. Owns the latents, history and workspace tensors, so
// that a step allocates nothing.
#pragma once

#include <functional>
#include <vector>

#include "device/execution_context.h"
#include "sampling/sampler_state.h"

namespace octavo::sampling {

/// The guided velocity of every picture at (latents, sigma): model, guidance and all. [B, C, height, width] f32 both;
/// must not keep the views. `out` is not `latents`.
using VelocityFunction = std::function<void(const TensorView& latents, float sigma, const TensorView& out)>;

/// One thread at a time, the one that owns the context it is given.
class SamplerRun {
 public:
  /// Copies `state` to the device: a first start and a resume are the same thing. `row` is the state's sampler and
  /// outlives the run. kResourceExhausted without memory, kDataCorruption when the state does not fit the row.
  static Result<SamplerRun> create(device::Device& device, device::Stream& stream, const SamplerRow& row,
                                   const SamplerState& state);

  int step() const { return step_; }
  int steps() const { return static_cast<int>(sigmas_.size()) - 1; }
  bool finished() const { return step_ >= steps(); }
  /// [B, C, height, width] f32 on the device; the result once finished().
  const TensorView& latents() const { return latents_; }
  const SamplerRow& sampler() const { return *row_; }
  std::span<const float> sigmas() const { return sigmas_; }

  /// Runs one step with `velocity` as the model. Requires !finished(). Allocates nothing on the CPU.
  void advance(device::ExecutionContext& context, const VelocityFunction& velocity);

  /// Copies everything back to the host; synchronises the stream.
  SamplerState save(device::ExecutionContext& context) const;

 private:
  SamplerRun() = default;
  const SamplerRow* row_ = nullptr;
  std::vector<float> sigmas_;
  int step_ = 0;
  Shape shape_;
  SamplerOptions options_;
  std::vector<NoiseStream> noise_;
  std::vector<float> host_noise_;  // one picture's values on their way to the device
  std::vector<device::Buffer> buffers_;
  TensorView latents_;
  std::vector<TensorView> history_;
  std::vector<TensorView> workspace_;
};

}  // namespace octavo::sampling
