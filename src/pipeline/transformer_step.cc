#include "pipeline/transformer_step.h"

namespace octavo::pipeline {
namespace {

/// Row r of `to` from row r / repeat of `from`; rows are contiguous.
void copy_rows(device::ExecutionContext& context, const TensorView& from, const TensorView& to) {
  const std::int64_t rows = to.dim(0), repeat = rows / from.dim(0);
  OCTAVO_CHECK(repeat * from.dim(0) == rows, "{} rows from {}", rows, from.dim(0));
  device::Device& device = context.device();
  if (repeat == 1) {
    device.copy_within(context.stream(), to.data(), from.data(), to.byte_count());
    return;
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    const TensorView target = to.slice(0, r, 1);
    device.copy_within(context.stream(), target.data(), from.slice(0, r / repeat, 1).data(), target.byte_count());
  }
}

}  // namespace

Result<std::unique_ptr<TransformerStep>> TransformerStep::create(device::Device& device, const models::Mmdit& mmdit,
                                                                 const StepShape& shape) {
  const models::MmditConfig& config = mmdit.config();
  std::unique_ptr<TransformerStep> step(new TransformerStep);
  step->mmdit_ = &mmdit;
  step->shape_ = shape;
  const Shape velocity{shape.rows, config.out_channels, shape.latents[2], shape.latents[3]};
  const Shape context{shape.rows, shape.tokens, config.width}, modulations{shape.rows, mmdit.modulation_width()};
  TensorView* const views[] = {&step->latents_, &step->velocity_, &step->inputs_.context, &step->inputs_.modulations};
  const Shape shapes[] = {shape.latents, velocity, context, modulations};
  constexpr std::size_t kAlignment = device::Arena::kAlignment;
  const auto bytes_of = [](const Shape& extents) {
    return (static_cast<std::size_t>(extents.element_count()) * sizeof(float) + kAlignment - 1) / kAlignment *
           kAlignment;
  };
  std::size_t bytes = 0;
  for (const Shape& extents : shapes) bytes += bytes_of(extents);
  OCTAVO_ASSIGN_OR_RETURN(step->memory_, device.allocate(bytes));
  auto* at = static_cast<std::byte*>(step->memory_.data());
  for (std::size_t i = 0; i < std::size(shapes); ++i) {
    *views[i] = TensorView(static_cast<void*>(at), DType::kF32, shapes[i]);
    at += bytes_of(shapes[i]);
  }
  step->inputs_.rows = shape.rows;
  return step;
}

void TransformerStep::bind(device::ExecutionContext& context, const models::MmditConditioning& conditioning) {
  copy_rows(context, conditioning.context, inputs_.context);
}

const TensorView& TransformerStep::run(device::ExecutionContext& context, const TensorView& latents, int call,
                                       const models::MmditConditioning& conditioning) {
  copy_rows(context, latents, latents_);
  copy_rows(context, conditioning.modulations.slice(0, call * conditioning.rows, conditioning.rows),
            inputs_.modulations);
  forward(context);
  return velocity_;
}

void TransformerStep::forward(device::ExecutionContext& context) {
  device::Stream& stream = context.stream();
  // Sinks and observers look between the ops; what lies in another arena by now must not be replayed.
  const bool watched = context.tapped() || context.op_observer() != nullptr;
  const bool replayable = stream.supports_capture() && warm_ && !watched;
  const void* arena = context.arena().base();
  const void* side_arena = context.side() != nullptr ? context.side()->arena().base() : nullptr;
  if (recorded_arena_ != arena || recorded_side_arena_ != side_arena) graph_.reset();
  if (!replayable) {
    mmdit_->predict(context, latents_, 0, inputs_, velocity_);
    warm_ = true;
    return;
  }
  if (graph_ == nullptr) {
    stream.begin_capture();
    try {
      mmdit_->predict(context, latents_, 0, inputs_, velocity_);
    } catch (...) {
      try {
        stream.end_capture();            // leaves the stream usable
      } catch (const std::exception&) {  // NOLINT: the first failure is the one to tell
      }
      throw;
    }
    graph_ = stream.end_capture();
    recorded_arena_ = arena;
    recorded_side_arena_ = side_arena;
  }
  graph_->launch();
}

}  // namespace octavo::pipeline
