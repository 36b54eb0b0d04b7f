#include "sampling/sampler_run.h"

#include "ops/sample/sample.h"

namespace octavo::sampling {
namespace {

/// The verbs over ops and a velocity function; lives for one step.
class DeviceVerbs final : public SamplerVerbs {
 public:
  DeviceVerbs(device::ExecutionContext& context, const VelocityFunction& velocity, std::span<NoiseStream> streams,
              std::span<float> host_noise)
      : context_(context), velocity_(velocity), streams_(streams), host_noise_(host_noise) {}

  void denoise(const TensorView& latents, float sigma, Prediction prediction, const TensorView& out) override {
    velocity_(latents, sigma, out);
    if (prediction == Prediction::kDenoised) lincomb({{1.0f, latents}, {-sigma, out}}, out);
  }

  void lincomb(std::initializer_list<Term> terms, const TensorView& out) override {
    ops::LincombArgs args;
    OCTAVO_CHECK(terms.size() <= args.terms.size(), "a sum of {} latents", terms.size());
    for (const Term& term : terms) {
      args.terms[static_cast<std::size_t>(args.term_count++)] = {term.coefficient, term.input};
    }
    args.out = out;
    ops::lincomb(context_, args);
  }

  void noise(const TensorView& out) override {
    for (std::size_t image = 0; image < streams_.size(); ++image) {
      streams_[image].normal(host_noise_);
      const TensorView target = out.slice(0, static_cast<std::int64_t>(image), 1);
      context_.device().copy_to_device(context_.stream(), target.data(), host_noise_.data(), target.byte_count());
      context_.stream().synchronize();  // host_noise_ is written again
    }
  }

 private:
  device::ExecutionContext& context_;
  const VelocityFunction& velocity_;
  std::span<NoiseStream> streams_;
  std::span<float> host_noise_;
};

}  // namespace

Result<SamplerRun> SamplerRun::create(device::Device& device, device::Stream& stream, const SamplerRow& row,
                                      const SamplerState& state) {
  const auto elements = static_cast<std::size_t>(state.shape.element_count());
  const bool fits = row.name == state.sampler && state.shape.rank() == 4 && elements > 0 && state.sigmas.size() >= 2 &&
                    state.step >= 0 && state.step <= state.steps() &&
                    state.noise.size() == static_cast<std::size_t>(state.shape[0]) &&
                    state.latents.size() == elements &&
                    state.history.size() == static_cast<std::size_t>(row.history_count);
  if (!fits) return data_corruption("sampler state", fmt::format("does not fit sampler '{}'", row.name));
  for (const auto& tensor : state.history) {
    if (tensor.size() != elements) return data_corruption("sampler state", "history has another size than latents");
  }

  SamplerRun run;
  run.row_ = &row;
  run.sigmas_ = state.sigmas;
  run.step_ = state.step;
  run.shape_ = state.shape;
  run.options_ = state.options;
  run.noise_ = state.noise;
  run.host_noise_.resize(elements / static_cast<std::size_t>(state.shape[0]));
  const auto make_tensor = [&](const std::vector<float>* contents) -> Result<TensorView> {
    OCTAVO_ASSIGN_OR_RETURN(device::Buffer buffer, device.allocate(elements * sizeof(float)));
    const TensorView view(buffer.data(), DType::kF32, state.shape);
    if (contents != nullptr) device.copy_to_device(stream, view.data(), contents->data(), view.byte_count());
    run.buffers_.push_back(std::move(buffer));
    return view;
  };
  OCTAVO_ASSIGN_OR_RETURN(run.latents_, make_tensor(&state.latents));
  for (const auto& tensor : state.history) {
    OCTAVO_ASSIGN_OR_RETURN(const TensorView view, make_tensor(&tensor));
    run.history_.push_back(view);
  }
  for (int i = 0; i < row.workspace_count; ++i) {
    OCTAVO_ASSIGN_OR_RETURN(const TensorView view, make_tensor(nullptr));
    run.workspace_.push_back(view);
  }
  stream.synchronize();  // the caller may drop `state`
  return run;
}

void SamplerRun::advance(device::ExecutionContext& context, const VelocityFunction& velocity) {
  OCTAVO_CHECK(!finished(), "step {} of {}", step_, steps());
  DeviceVerbs verbs(context, velocity, noise_, host_noise_);
  SamplerStep step;
  step.index = step_;
  step.sigmas = sigmas_;
  step.options = options_;
  step.latents = latents_;
  step.history = history_;
  step.workspace = workspace_;
  row_->step(verbs, step);
  ++step_;
}

SamplerState SamplerRun::save(device::ExecutionContext& context) const {
  SamplerState state;
  state.sampler = row_->name;
  state.sigmas = sigmas_;
  state.step = step_;
  state.shape = shape_;
  state.options = options_;
  state.noise = noise_;
  const auto read = [&](const TensorView& view) {
    std::vector<float> values(static_cast<std::size_t>(view.element_count()));
    context.device().copy_to_host(context.stream(), values.data(), view.data(), view.byte_count());
    return values;
  };
  state.latents = read(latents_);
  for (const TensorView& view : history_) state.history.push_back(read(view));
  context.stream().synchronize();
  return state;
}

}  // namespace octavo::sampling
