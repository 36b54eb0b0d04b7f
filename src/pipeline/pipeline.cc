#include "pipeline/pipeline.h"

#include <algorithm>
#include <cmath>
#include <new>

#include "base/log.h"
#include "image/flat.h"
#include "ops/cast/cast.h"
#include "ops/sample/sample.h"
#include "sampling/guidance.h"
#include "sampling/sampler_run.h"
#include "sampling/schedule.h"
#include "telemetry/stages.h"

namespace octavo::pipeline {
namespace {

/// Adds what passes between its construction and stop() to a stage.
class StageTimer {
 public:
  StageTimer(std::map<std::string, double>& stages, std::string_view stage)
      : stages_(stages), stage_(stage), started_(std::chrono::steady_clock::now()) {}
  void stop() { stages_[std::string(stage_)] += seconds(std::chrono::steady_clock::now() - started_); }

 private:
  std::map<std::string, double>& stages_;
  std::string_view stage_;
  std::chrono::steady_clock::time_point started_;
};

Status check_control(const generation::RunControl& control) {
  if (control.cancel.cancelled()) return cancelled("the request was cancelled");
  if (control.deadline && system_clock().now() >= *control.deadline) {
    return deadline_exceeded("deadline", "the request's time is over");
  }
  return {};
}

}  // namespace

/// Everything that one picture's steps read and write.
struct Pipeline::Run {
  sampling::SamplerRun sampler;
  sampling::Guidance guidance;
  sampling::SkipLayerGuidance skip_layers;
  std::vector<float> model_sigmas;  // the sigma of each call of the transformer, in order
  device::Buffer memory;
  models::MmditConditioning conditioning;  // a row a branch
  TransformerStep* step = nullptr;
  TensorView skipped;                               // [B, C, height, width] f32; undefined without skip-layer guidance
  TensorView all_finite;                            // [2] i32: of even and of odd steps
  TensorView known_image, known_noise, known_mask;  // of an inpainting run; else undefined
};

Status Pipeline::reserve_for(const std::function<void()>& work) {
  arena_.set_measuring(true);
  side_arena_.set_measuring(true);
  work();
  const std::size_t peak = arena_.peak_bytes(), side_peak = side_arena_.peak_bytes();
  arena_.set_measuring(false);
  side_arena_.set_measuring(false);
  OCTAVO_RETURN_IF_ERROR(arena_.reserve(*device_, peak));
  return side_arena_.reserve(*device_, side_peak);
}

Status Pipeline::plan(const generation::GenerationRequest& request, std::span<const TextTokens> branches,
                      std::int64_t images) {
  const auto& transformer = model_.mmdit.config();
  const int downscale = model_.decoder.config().downscale();
  const std::int64_t height = request.height / downscale, width = request.width / downscale;
  const auto rows = static_cast<std::int64_t>(branches.size());
  const std::int64_t tokens = branches.front().context_rows();
  OCTAVO_ASSIGN_OR_RETURN(const Path path, path_of(request));
  const auto calls = static_cast<std::int64_t>(sampling::model_sigmas(*path.sampler, path.schedule.sigmas).size());
  const auto dry = [](DType dtype, Shape shape) { return TensorView(static_cast<void*>(nullptr), dtype, shape); };
  return reserve_for([&] {
    for (const TextTokens& branch : branches) text_.plan(*context_, branch);
    models::MmditConditioning conditioning;
    conditioning.rows = rows;
    conditioning.context = dry(DType::kF32, Shape{rows, tokens, transformer.width});
    conditioning.modulations = dry(DType::kF32, Shape{calls * rows, model_.mmdit.modulation_width()});
    model_.mmdit.prepare(*context_, dry(DType::kF32, Shape{rows, tokens, transformer.context_width}),
                         dry(DType::kF32, Shape{rows, transformer.pooled_width}), dry(DType::kF32, Shape{calls}),
                         conditioning);
    models::MmditConditioning step;
    step.rows = rows * images;
    step.context = dry(DType::kF32, Shape{step.rows, tokens, transformer.width});
    step.modulations = dry(DType::kF32, Shape{step.rows, model_.mmdit.modulation_width()});
    model_.mmdit.predict(*context_, dry(DType::kF32, Shape{images, transformer.in_channels, height, width}), 0, step,
                         dry(DType::kF32, Shape{step.rows, transformer.out_channels, height, width}));
    model_.decoder.decode(*context_, dry(DType::kF32, Shape{1, transformer.in_channels, height, width}),
                          dry(DType::kF32, Shape{1, request.height, request.width, 3}));
  });
}

Result<TransformerStep*> Pipeline::step_of(const StepShape& shape) {
  const auto found = std::find_if(steps_.begin(), steps_.end(), [&](const auto& one) { return one->shape() == shape; });
  if (found != steps_.end()) {
    steps_.splice(steps_.begin(), steps_, found);
    return steps_.front().get();
  }
  constexpr std::size_t kMostShapes = 8;
  if (steps_.size() == kMostShapes) steps_.pop_back();
  OCTAVO_ASSIGN_OR_RETURN(auto step, TransformerStep::create(*device_, model_.mmdit, shape));
  steps_.push_front(std::move(step));
  return steps_.front().get();
}

int Pipeline::images_per_forward(const generation::GenerationRequest& request) const {
  if (images_per_forward_ > 0) return images_per_forward_;
  // As many tokens as one picture of 1024 x 1024 has fill a GPU; more pictures in a forward gain nothing then.
  constexpr int kFillingTokens = 4096;
  const int patch = model_.limits.size_multiple;
  const int tokens = std::max(1, (request.width / patch) * (request.height / patch));
  return std::clamp(kFillingTokens / tokens, 1, traits().most_images_per_forward);
}

Result<Pipeline::Path> Pipeline::path_of(const generation::GenerationRequest& request) const {
  OCTAVO_ASSIGN_OR_RETURN(const auto* sampler, sampling::find_sampler(request.sampler));
  OCTAVO_ASSIGN_OR_RETURN(
      const auto* schedule,
      sampling::find_schedule(request.schedule.empty() ? std::string(sampler->default_schedule) : request.schedule));
  Path path{sampler,
            sampling::make_schedule(*schedule, request.steps,
                                    {request.shift > 0 ? request.shift : model_.flow.shift, model_.flow.train_steps})};
  if (request.init_image != nullptr) path.schedule = sampling::cut_to_strength(path.schedule, request.strength);
  return path;
}

Result<DenoiseState> Pipeline::begin(const generation::GenerationRequest& request, int image_index) {
  OCTAVO_CHECK(image_index >= 0 && image_index < request.image_count, "picture {} of {}", image_index,
               request.image_count);
  OCTAVO_ASSIGN_OR_RETURN(const Path path, path_of(request));
  const int downscale = model_.decoder.config().downscale();
  const Shape shape{1, model_.mmdit.config().in_channels, request.height / downscale, request.width / downscale};
  const generation::ImageSeeds seeds = generation::image_seeds(request, image_index);
  OCTAVO_ASSIGN_OR_RETURN(const sampling::NoiseSource source, sampling::parse_noise_source(request.noise_source));
  const sampling::NoiseOptions noise{.source = source,
                                     .seed = seeds.seed,
                                     .subseed = seeds.subseed,
                                     .subseed_strength = request.subseed_strength,
                                     .resize_height = request.seed_resize_height / downscale,
                                     .resize_width = request.seed_resize_width / downscale};
  const sampling::SamplerOptions options{static_cast<float>(request.eta), static_cast<float>(request.s_noise)};
  DenoiseState state{
      request, image_index, sampling::initial_state(*path.sampler, path.schedule, options, shape, {&noise, 1}), {}};
  if (request.init_image != nullptr) {
    OCTAVO_RETURN_IF_ERROR(start_from_image(state, path.schedule.sigmas.front()));
  }
  return state;
}

Result<Pipeline::Run> Pipeline::start_run(std::span<const DenoiseState> states) {
  const DenoiseState& first = states.front();
  const generation::GenerationRequest& request = first.request;
  const auto& transformer = model_.mmdit.config();
  const int downscale = model_.decoder.config().downscale();
  const Shape one{1, transformer.in_channels, request.height / downscale, request.width / downscale};
  std::vector<const sampling::SamplerState*> samplers;
  for (const DenoiseState& state : states) {
    if (!(state.sampler.shape == one)) {
      return data_corruption("denoise state",
                             "its latents " + state.sampler.shape.to_string() + " are not this model's");
    }
    const generation::GenerationRequest& other = state.request;
    const bool of_one_request = other.prompt == request.prompt && other.negative_prompt == request.negative_prompt &&
                                other.guidance_scale == request.guidance_scale && other.seed == request.seed;
    if (!of_one_request || state.known.has_value() != first.known.has_value()) {
      return data_corruption("denoise state", "pictures of different requests cannot be drawn together");
    }
    samplers.push_back(&state.sampler);
    if (!state.known) continue;
    const std::size_t elements = state.sampler.latents.size();
    if (state.known->image.size() != elements || state.known->noise.size() != elements ||
        state.known->mask.size() != static_cast<std::size_t>(one[2] * one[3])) {
      return data_corruption("denoise state", "the picture it keeps does not have its latents' size");
    }
  }
  OCTAVO_ASSIGN_OR_RETURN(const sampling::SamplerState joined, sampling::join_states(samplers));
  const Shape& shape = joined.shape;
  const std::int64_t images = shape[0];
  const std::vector<TextTokens> branches = text_.tokenize(request);
  OCTAVO_RETURN_IF_ERROR(plan(request, branches, images));
  OCTAVO_ASSIGN_OR_RETURN(const auto* row, sampling::find_sampler(joined.sampler));
  OCTAVO_ASSIGN_OR_RETURN(auto sampler, sampling::SamplerRun::create(*device_, *stream_, *row, joined));
  Run run{
      .sampler = std::move(sampler),
      .guidance = {static_cast<float>(request.guidance_scale)},
      .skip_layers = {request.skip_layers, request.skip_layer_scale, request.skip_layer_start, request.skip_layer_stop},
      .model_sigmas = sampling::model_sigmas(*row, joined.sigmas),
      .memory = {},
      .conditioning = {},
      .step = nullptr,
      .skipped = {},
      .all_finite = {},
      .known_image = {},
      .known_noise = {},
      .known_mask = {}};
  const std::int64_t rows = run.guidance.branches(), tokens = branches.front().context_rows();
  const std::int64_t calls = static_cast<std::int64_t>(run.model_sigmas.size());

  // One block for everything that lives as long as the loop.
  std::size_t bytes = 0;
  const auto place = [&bytes](DType dtype, const Shape& extents) {
    const std::size_t at = bytes;
    bytes += (static_cast<std::size_t>(extents.element_count()) * dtype_size(dtype) + 255) / 256 * 256;
    return at;
  };
  const Shape context_shape{rows, tokens, transformer.width};
  const Shape modulation_shape{calls * rows, model_.mmdit.modulation_width()};
  const Shape text_shape{rows, tokens, transformer.context_width}, pooled_shape{rows, transformer.pooled_width};
  const std::size_t context_at = place(DType::kF32, context_shape),
                    modulation_at = place(DType::kF32, modulation_shape);
  const std::size_t text_at = place(DType::kF32, text_shape), pooled_at = place(DType::kF32, pooled_shape);
  const std::size_t timestep_at = place(DType::kF32, Shape{calls});
  const Shape skipped_shape{images, transformer.out_channels, shape[2], shape[3]};
  const bool skips = run.guidance.enabled() && run.skip_layers.enabled();
  const std::size_t skipped_at = skips ? place(DType::kF32, skipped_shape) : 0,
                    finite_at = place(DType::kI32, Shape{2});
  const Shape mask_shape{images, shape[2], shape[3]};
  const bool known = first.known.has_value();
  const std::size_t known_image_at = known ? place(DType::kF32, shape) : 0;
  const std::size_t known_noise_at = known ? place(DType::kF32, shape) : 0;
  const std::size_t known_mask_at = known ? place(DType::kF32, mask_shape) : 0;
  OCTAVO_ASSIGN_OR_RETURN(run.memory, allocate(bytes));
  const auto view = [&run](std::size_t at, DType dtype, const Shape& extents) {
    return TensorView(static_cast<void*>(static_cast<std::byte*>(run.memory.data()) + at), dtype, extents);
  };
  run.conditioning.rows = rows;
  run.conditioning.context = view(context_at, DType::kF32, context_shape);
  run.conditioning.modulations = view(modulation_at, DType::kF32, modulation_shape);
  if (skips) run.skipped = view(skipped_at, DType::kF32, skipped_shape);
  run.all_finite = view(finite_at, DType::kI32, Shape{2});

  if (known) {
    const auto copy = [&](std::size_t at, const Shape& extents, std::vector<float> KnownLatents::*values) {
      const TensorView target = view(at, DType::kF32, extents);
      for (std::size_t i = 0; i < states.size(); ++i) {
        const TensorView part = target.slice(0, static_cast<std::int64_t>(i), 1);
        device_->copy_to_device(*stream_, part.data(), ((*states[i].known).*values).data(), part.byte_count());
      }
      return target;
    };
    run.known_image = copy(known_image_at, shape, &KnownLatents::image);
    run.known_noise = copy(known_noise_at, shape, &KnownLatents::noise);
    run.known_mask = copy(known_mask_at, mask_shape, &KnownLatents::mask);
  }

  const TensorView text = view(text_at, DType::kF32, text_shape), pooled = view(pooled_at, DType::kF32, pooled_shape);
  for (std::size_t r = 0; r < branches.size(); ++r) {
    OCTAVO_ASSIGN_OR_RETURN(const EncodedText encoded, text_.encode(*context_, branches[r]));
    const auto index = static_cast<std::int64_t>(r);
    ops::cast(*context_,
              {.x = encoded.context, .out = text.slice(0, index, 1).reshape(Shape{tokens, transformer.context_width})});
    ops::cast(*context_,
              {.x = encoded.pooled, .out = pooled.slice(0, index, 1).reshape(Shape{transformer.pooled_width})});
  }
  std::vector<float> timesteps;
  for (const float sigma : run.model_sigmas) timesteps.push_back(sigma * static_cast<float>(model_.flow.train_steps));
  const TensorView timestep_view = view(timestep_at, DType::kF32, Shape{calls});
  device_->copy_to_device(*stream_, timestep_view.data(), timesteps.data(), timesteps.size() * sizeof(float));
  model_.mmdit.prepare(*context_, text, pooled, timestep_view, run.conditioning);
  OCTAVO_ASSIGN_OR_RETURN(run.step, step_of({.latents = shape, .rows = rows * images, .tokens = tokens}));
  run.step->bind(*context_, run.conditioning);
  stream_->synchronize();
  return run;
}

void Pipeline::guided_velocity(Run& run, int step, const TensorView& latents, float sigma, const TensorView& out) {
  const auto found = std::find(run.model_sigmas.begin(), run.model_sigmas.end(), sigma);
  OCTAVO_CHECK(found != run.model_sigmas.end(), "sigma {} was not announced by the sampler", sigma);
  const auto call = static_cast<int>(found - run.model_sigmas.begin());
  const TensorView& prediction = run.step->run(*context_, latents, call, run.conditioning);
  sampling::apply_guidance(*context_, run.guidance, prediction, out);
  if (run.skipped.defined() && run.skip_layers.applies(step, run.sampler.steps())) {
    // The prompt's branch alone; it is the second of the two.
    const std::int64_t images = latents.dim(0);
    model_.mmdit.predict(*context_, latents, 0, run.step->inputs().part(0, images, images), run.skipped,
                         run.skip_layers.layers);
    sampling::apply_skip_layer_guidance(*context_, run.skip_layers, prediction.slice(0, images, images), run.skipped,
                                        out);
  }
}

Result<std::vector<std::vector<float>>> Pipeline::predict(const DenoiseState& state, std::span<const ModelCall> calls,
                                                          const generation::RunControl& control) {
  OCTAVO_ASSIGN_OR_RETURN(Run run, start_run({&state, 1}));
  const Shape& shape = state.sampler.shape;
  const auto elements = static_cast<std::size_t>(shape.element_count());
  const std::size_t bytes = elements * sizeof(float);
  OCTAVO_ASSIGN_OR_RETURN(const device::Buffer latents, allocate(bytes));
  OCTAVO_ASSIGN_OR_RETURN(const device::Buffer velocity, allocate(bytes));
  const TensorView latents_view(latents.data(), DType::kF32, shape), velocity_view(velocity.data(), DType::kF32, shape);
  generation::Progress progress{state.image_index, state.request.image_count, 0, static_cast<int>(calls.size()),
                                std::string(telemetry::kDenoise)};
  std::vector<std::vector<float>> velocities;
  for (const ModelCall& call : calls) {
    OCTAVO_RETURN_IF_ERROR(check_control(control));
    const bool announced =
        std::find(run.model_sigmas.begin(), run.model_sigmas.end(), call.sigma) != run.model_sigmas.end();
    if (!announced || call.latents.size() != elements) {
      return invalid_argument("calls", fmt::format("{} values at sigma {} are not of a loop over {}",
                                                   call.latents.size(), call.sigma, shape.to_string()));
    }
    device_->copy_to_device(*stream_, latents.data(), call.latents.data(), bytes);
    guided_velocity(run, call.step, latents_view, call.sigma, velocity_view);
    device_->copy_to_host(*stream_, velocities.emplace_back(elements).data(), velocity.data(), bytes);
    stream_->synchronize();
    ++progress.step;
    if (control.on_progress) control.on_progress(progress);
  }
  return velocities;
}

Status Pipeline::advance(DenoiseState& state, int until_step, const generation::RunControl& control) {
  return advance_together({&state, 1}, until_step, control);
}

Status Pipeline::advance_together(std::span<DenoiseState> states, int until_step,
                                  const generation::RunControl& control) {
  OCTAVO_CHECK(!states.empty(), "no pictures to advance");
  const DenoiseState& first = states.front();
  OCTAVO_ASSIGN_OR_RETURN(Run run, start_run(states));
  const int last = std::min(until_step, run.sampler.steps());
  const sampling::VelocityFunction velocity = [&](const TensorView& latents, float sigma, const TensorView& out) {
    guided_velocity(run, run.sampler.step(), latents, sigma, out);
    if (on_call_) {
      OCTAVO_CHECK(states.size() == 1, "an observer of calls and {} pictures", states.size());
      std::vector<float> seen(static_cast<std::size_t>(latents.element_count())), answer(seen.size());
      device_->copy_to_host(*stream_, seen.data(), latents.data(), latents.byte_count());
      device_->copy_to_host(*stream_, answer.data(), out.data(), out.byte_count());
      stream_->synchronize();
      on_call_(run.sampler.step(), sigma, latents.moved_to(seen.data()), out.moved_to(answer.data()));
    }
  };
  generation::Progress progress{first.image_index, first.request.image_count, run.sampler.step(), run.sampler.steps(),
                                std::string(telemetry::kDenoise)};
  const device::ProfilerRange range(*device_, "denoise");
  // A GPU is handed the next step before the last one is looked at: it never waits for this thread.
  const bool ahead = traits().kind != device::DeviceKind::kCpu && !on_call_ && !context_->tapped();
  auto* const finite = static_cast<std::int32_t*>(step_flags_.data());
  struct Enqueued {
    int step;
    std::unique_ptr<device::Event> done;  // null: it is
  };
  std::optional<Enqueued> last_step;
  const auto settle = [&]() -> Status {
    if (!last_step) return {};
    const int step = last_step->step;
    if (last_step->done != nullptr) last_step->done->wait();
    last_step.reset();
    if (finite[step % 2] == 0) {
      return internal_error(
          "denoise", fmt::format("the latents hold NaN or infinity after step {} of {}", step, run.sampler.steps()));
    }
    // Pictures drawn together are told as if they came one after another: the fraction done is that of the call.
    const int images = static_cast<int>(states.size()), steps = run.sampler.steps();
    const int drawn = std::min(images - 1, images * step / steps);
    progress.image_index = first.image_index + drawn;
    progress.step = images * step - drawn * steps;
    if (control.on_progress) control.on_progress(progress);
    return {};
  };
  Status status;
  while (run.sampler.step() < last) {
    status = check_control(control);
    if (!status.ok()) break;
    run.sampler.advance(*context_, velocity);
    const int step = run.sampler.step();
    if (run.known_mask.defined()) {
      ops::blend_known(*context_, {.image = run.known_image,
                                   .noise = run.known_noise,
                                   .mask = run.known_mask,
                                   .sigma = run.sampler.sigmas()[static_cast<std::size_t>(step)],
                                   .latents = run.sampler.latents()});
    }
    const TensorView flag = run.all_finite.slice(0, step % 2, 1);
    ops::check_finite(*context_, {.x = run.sampler.latents(), .all_finite = flag});
    device_->copy_to_host(*stream_, finite + step % 2, flag.data(), sizeof(std::int32_t));
    if (ahead) {
      std::unique_ptr<device::Event> done = stream_->record_event();
      OCTAVO_RETURN_IF_ERROR(settle());
      last_step = Enqueued{step, std::move(done)};
    } else {
      stream_->synchronize();
      last_step = Enqueued{step, nullptr};
      OCTAVO_RETURN_IF_ERROR(settle());
    }
  }
  OCTAVO_RETURN_IF_ERROR(settle());
  std::vector<sampling::SamplerState> parts = sampling::split_state(run.sampler.save(*context_));
  for (std::size_t i = 0; i < states.size(); ++i) states[i].sampler = std::move(parts[i]);
  return status;
}

Result<image::Image> Pipeline::decode(const DenoiseState& state) {
  const generation::GenerationRequest& request = state.request;
  OCTAVO_RETURN_IF_ERROR(plan(request, text_.tokenize(request), 1));
  const device::ProfilerRange range(*device_, "decode");
  const Shape& shape = state.sampler.shape;
  const std::size_t latent_bytes = state.sampler.latents.size() * sizeof(float);
  const Shape picture_shape{1, request.height, request.width, 3};
  const auto values = static_cast<std::size_t>(picture_shape.element_count());
  OCTAVO_ASSIGN_OR_RETURN(const device::Buffer latents, allocate(latent_bytes));
  OCTAVO_ASSIGN_OR_RETURN(const device::Buffer decoded, allocate(values * sizeof(float)));
  OCTAVO_ASSIGN_OR_RETURN(const device::Buffer pixels, allocate(values));
  OCTAVO_ASSIGN_OR_RETURN(const device::Buffer finite, allocate(sizeof(std::int32_t)));
  device_->copy_to_device(*stream_, latents.data(), state.sampler.latents.data(), latent_bytes);
  const TensorView decoded_view(decoded.data(), DType::kF32, picture_shape);
  model_.decoder.decode(*context_, TensorView(latents.data(), DType::kF32, shape), decoded_view);
  ops::check_finite(*context_, {.x = decoded_view, .all_finite = TensorView(finite.data(), DType::kI32, Shape{1})});
  ops::to_pixels(*context_, {.x = decoded_view, .out = TensorView(pixels.data(), DType::kI8, picture_shape)});
  image::Image picture;
  picture.width = request.width;
  picture.height = request.height;
  picture.channels = 3;
  picture.pixels.resize(values);
  std::int32_t all_finite = 0;
  device_->copy_to_host(*stream_, picture.pixels.data(), pixels.data(), values);
  device_->copy_to_host(*stream_, &all_finite, finite.data(), sizeof all_finite);
  stream_->synchronize();
  if (all_finite == 0) return internal_error("decode", "the decoded picture holds NaN or infinity");
  if (image::is_flat(picture)) {
    // Not an error: a prompt may ask for an empty wall. Worth a line, because a broken model often draws one.
    spdlog::warn("picture with seed {} is one colour everywhere",
                 generation::image_seeds(request, state.image_index).seed);
  }
  if (request.mask != nullptr) {
    OCTAVO_ASSIGN_OR_RETURN(const InputPixels input, prepare_pixels(request, model_.decoder.config().downscale()));
    return paste_back(input, picture);
  }
  return picture;
}

Result<generation::GenerationResult> Pipeline::generate(const generation::GenerationRequest& request,
                                                        const generation::RunControl& control) {
  device_->attach_thread();
  const bool on_gpu = traits().kind != device::DeviceKind::kCpu;
  try {
    if (on_gpu) {
      try {
        return draw(request, control);
      } catch (const std::bad_alloc&) {
        // A library found none while memory was kept for reuse: it has been given back by now. What was half made is
        // gone.
        steps_.clear();
      }
    }
    return draw(request, control);
  } catch (const device::DeviceError& error) {
    throw generation::GeneratorLost(error.what());
  } catch (const std::bad_alloc&) {
    return on_gpu ? resource_exhausted("GPU memory",
                                       "it ran out while drawing; use a smaller picture or batch, or --vram min")
                  : resource_exhausted("memory", "it ran out while drawing; use a smaller picture or model");
  }
}

Result<generation::GenerationResult> Pipeline::draw(const generation::GenerationRequest& request,
                                                    const generation::RunControl& control) {
  generation::GenerationResult result;
  result.request = request;
  StageTimer total(result.stage_seconds, telemetry::kTotal);
  const auto report = [&](int image_index, int step, int steps, std::string_view stage) {
    if (control.on_progress) {
      control.on_progress({image_index, request.image_count, step, steps, std::string(stage)});
    }
  };
  {
    report(0, 0, request.steps, telemetry::kEncodeText);
    StageTimer timer(result.stage_seconds, telemetry::kEncodeText);
    const std::vector<TextTokens> branches = text_.tokenize(request);
    OCTAVO_RETURN_IF_ERROR(plan(request, branches, std::min(request.image_count, images_per_forward(request))));
    const device::ProfilerRange range(*device_, "encode_text");
    for (const TextTokens& branch : branches) OCTAVO_RETURN_IF_ERROR(text_.encode(*context_, branch).status());
    timer.stop();
  }
  const int together = on_call_ ? 1 : images_per_forward(request);
  for (int index = 0; index < request.image_count && !result.interrupted; index += together) {
    StageTimer encoding(result.stage_seconds, telemetry::kEncodeInput);
    std::vector<DenoiseState> states;
    for (int image = index; image < std::min(index + together, request.image_count); ++image) {
      OCTAVO_ASSIGN_OR_RETURN(DenoiseState state, begin(request, image));
      states.push_back(std::move(state));
    }
    if (request.init_image != nullptr) encoding.stop();
    StageTimer denoise(result.stage_seconds, telemetry::kDenoise);
    const Status status = advance_together(states, states.front().sampler.steps(), control);
    denoise.stop();
    const bool interrupted = status.code() == ErrorCode::kCancelled && request.keep_partial;
    if (!status.ok() && !interrupted) return status;
    result.interrupted = interrupted;
    for (const DenoiseState& state : states) {
      if (interrupted && state.sampler.step == 0) break;  // nothing but noise to show
      report(states.back().image_index, state.sampler.step, state.sampler.steps(), telemetry::kDecode);
      StageTimer decoding(result.stage_seconds, telemetry::kDecode);
      OCTAVO_ASSIGN_OR_RETURN(image::Image picture, decode(state));
      decoding.stop();
      result.images.push_back({std::move(picture), generation::image_seeds(request, state.image_index).seed});
    }
  }
  total.stop();
  return result;
}

}  // namespace octavo::pipeline
