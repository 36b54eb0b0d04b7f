// TransformerStep: one forward of the transformer at one shape, with memory of its own for what it reads and writes.
// Where streams can be captured, the forward is recorded once and replayed for every later step: inputs are copied to
// where the recording expects them (10 MB at the most), so one recording serves every step, picture and prompt of its
// shape.
#pragma once

#include <memory>

#include "device/execution_context.h"
#include "models/mmdit/mmdit.h"

namespace octavo::pipeline {

/// Rows are [all branches of ...]: with B pictures and R branches, row r belongs to branch r / B and picture r % B.
struct StepShape {
  Shape latents;            // [B, C, height, width]
  std::int64_t rows = 0;    // R * B
  std::int64_t tokens = 0;  // of the text
  bool operator==(const StepShape&) const = default;
};

/// One thread at a time. Allocates when made and never after; the recording is made at the second forward, when every
/// kernel of the first has been chosen.
class TransformerStep {
 public:
  /// kResourceExhausted without memory. `mmdit` outlives it.
  static Result<std::unique_ptr<TransformerStep>> create(device::Device& device, const models::Mmdit& mmdit,
                                                         const StepShape& shape);

  const StepShape& shape() const { return shape_; }
  /// Takes the embedded text of a run; `conditioning` has R rows.
  void bind(device::ExecutionContext& context, const models::MmditConditioning& conditioning);
  /// The velocity of every row at `latents` [B, C, height, width], for call `call` of the run last bound: a view of
  /// velocity() [R * B, C, height, width] f32, valid until the next call.
  const TensorView& run(device::ExecutionContext& context, const TensorView& latents, int call,
                        const models::MmditConditioning& conditioning);
  const TensorView& velocity() const { return velocity_; }
  /// The inputs of the last run(), for a forward that leaves blocks out.
  const models::MmditConditioning& inputs() const { return inputs_; }
  bool recorded() const { return graph_ != nullptr; }

 private:
  TransformerStep() = default;
  void forward(device::ExecutionContext& context);

  const models::Mmdit* mmdit_ = nullptr;
  StepShape shape_;
  device::Buffer memory_;
  TensorView latents_, velocity_;
  models::MmditConditioning inputs_;      // one call's
  bool warm_ = false;                     // one forward has run
  const void* recorded_arena_ = nullptr;  // where scratch lay
  const void* recorded_side_arena_ = nullptr;
  std::unique_ptr<device::Graph> graph_;
};

}  // namespace octavo::pipeline
