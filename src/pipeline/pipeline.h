// The pipeline: a request becomes pictures. Encode text, denoise, decode; one thread at a time.
//
// A denoise loop's state is a value: begin() makes it, advance() moves it to a later step border, decode() turns its
// latents into pixels. It can be written to bytes at any border and goes on bit for bit on the same kind of device and
// build. generate() is those three in a row, for every picture of the call.
#pragma once

#include <filesystem>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "device/cuda_backend.h"
#include "device/execution_context.h"
#include "generation/generation.h"
#include "models/sd35/sd35.h"
#include "pipeline/input_pixels.h"
#include "pipeline/text_conditioning.h"
#include "pipeline/transformer_step.h"
#include "sampling/sampler_state.h"

namespace octavo::pipeline {

struct LoadOptions {
  /// The first three say what products are fed with and widen 8-bit weights, but for kAuto, which takes the processor's
  /// preference and a quantised checkpoint as it says. kFp8 and kW8a16 quantise a 16-bit checkpoint's MMDiT at load
  /// (layers::WeightPrecision::kQuantized, kWeightsQuantized).
  enum class Precision { kAuto, kF32, kBf16, kFp8, kW8a16 };
  Precision precision = Precision::kAuto;
  device::KernelOverrides kernels;
  /// What to compute on; programs ask for kAuto, tests and tools stay on the CPU unless they say so.
  device::DeviceChoice device{.kind = device::DeviceChoice::Kind::kCpu, .cuda = {}, .threads = 0};
  int threads = 0;  // of the CPU, whatever `device` says; 0 = every core
  /// How the autoencoder works: on whole maps, in bands of rows (a quarter of the memory, half again the arithmetic),
  /// or in bands above 1024 x 1024 pixels.
  enum class VaeMemory { kAuto, kWhole, kBands };
  VaeMemory vae_memory = VaeMemory::kAuto;
  /// What stays in a GPU's memory: everything; the transformer's blocks and the autoencoder, while text encoders and
  /// what makes the modulations come from pinned host memory when they are used; the same with the autoencoder in
  /// bands.
  enum class Vram { kFull, kBalanced, kMin };
  Vram vram = Vram::kFull;
  int images_per_forward = 0;  // 1 to 8; 0 = as many as fill the device
  /// f32 | bf16: what is not in 8 bits with kFp8 and kW8a16; nothing = as the device prefers.
  std::optional<DType> activations;
  /// f32 | bf16: of the transformer's residual streams beside bf16 products; nothing = as the device prefers.
  std::optional<DType> residuals;
  /// Whether kFp8 and kW8a16 make T5's weights E4M3 too; nothing = on a GPU, where memory is short.
  std::optional<bool> quantize_t5;
  /// q and k of the transformer's attention in E4M3 (layers::Precision::attention_codes). kInvalidArgument where the
  /// device has no such attention for the model: of compute capability 9.0, heads of 64 with norms, bf16 beside it.
  bool fp8_attention = false;
  /// kFp8 of a 16-bit checkpoint: layers::Precision::static_amax, for measuring what static scales save.
  float static_amax = 0.0f;
};

/// "full" | "balanced" | "min"; errors name the flag --vram.
Result<LoadOptions::Vram> parse_vram(const std::string& name);

/// From flags: precision "auto" | "f32" | "bf16" | "fp8" | "w8a16", kernels "op=row"; errors name the flag, the op or
/// the row.
Result<LoadOptions> parse_load_options(const std::string& precision, const std::vector<std::string>& kernels,
                                       int threads);

/// What an inpainting run puts back at every step border where the mask keeps the picture.
struct KnownLatents {
  std::vector<float> image;  // [C, height, width], as the model sees latents
  std::vector<float> noise;  // as image; the same at every step
  std::vector<float> mask;   // [height, width]; 1 = repaint
};

/// "auto" | "whole" | "bands"; errors name the flag --vae-memory.
Result<LoadOptions::VaeMemory> parse_vae_memory(const std::string& name);

/// One call of the transformer in a picture's loop: what the sampler asked about.
struct ModelCall {
  int step = 0;     // counts from 0; some samplers make two calls in a step
  float sigma = 0;  // noise level of the latents
  std::vector<float> latents;
};

/// Sees each call of advance() and the guided velocity that came of it, [1, C, height, width] f32 both, in host memory;
/// valid during the call only. While there is one, generate() draws its pictures one by one.
using CallObserver = std::function<void(int step, float sigma, const TensorView& latents, const TensorView& velocity)>;

/// One picture between two steps.
struct DenoiseState {
  generation::GenerationRequest request;  // resolved, its pictures included
  int image_index = 0;
  sampling::SamplerState sampler;
  std::optional<KnownLatents> known;  // present when the request has a mask

  std::vector<std::byte> to_bytes() const;
  /// kDataCorruption (subject "denoise state") for anything that to_bytes() did not write.
  static Result<DenoiseState> from_bytes(std::span<const std::byte> bytes);
};

class Pipeline final : public generation::Generator {
 public:
  const generation::Capabilities& capabilities() const override { return capabilities_; }
  Result<generation::GenerationResult> generate(const generation::GenerationRequest& request,
                                                const generation::RunControl& control) override;

  /// Noise and schedule of picture `image_index`. From an init_image, which is encoded here, the schedule's last
  /// `strength` runs.
  Result<DenoiseState> begin(const generation::GenerationRequest& request, int image_index);
  /// Runs steps until `until_step` are done (at most all). Cancel, deadline and NaN are looked at between steps; on
  /// kCancelled and kDeadlineExceeded `state` holds the last finished step, so the run can go on later.
  Status advance(DenoiseState& state, int until_step, const generation::RunControl& control);
  /// The same for several pictures of one request at the same step, in one forward a step. Each picture is what it
  /// would be alone, as far as the device's products do not depend on how many rows they have.
  Status advance_together(std::span<DenoiseState> states, int until_step, const generation::RunControl& control);
  /// What this model would say in another loop: the guided velocity of each of `calls`, as advance() would have it at
  /// these latents. `state` is begin()'s for the same request; every sigma is one that its sampler asks about. Values
  /// that are not finite are given back as they are. Cancel and deadline are looked at between calls, progress counts
  /// them. kInvalidArgument (subject "calls") for latents or sigmas that are not of such a loop.
  Result<std::vector<std::vector<float>>> predict(const DenoiseState& state, std::span<const ModelCall> calls,
                                                  const generation::RunControl& control);
  /// The picture that the state's latents stand for.
  Result<image::Image> decode(const DenoiseState& state);

  DType activation_dtype() const { return dtype_; }
  const device::DeviceTraits& traits() const { return device_->traits(); }
  device::MemoryStatistics memory_statistics() const { return device_->memory_statistics(); }
  /// What runs, in words: "bf16", "w8a8 in 114 layers, else bf16". Equal words are equal arithmetic of equal files.
  std::string arithmetic() const;
  /// Encoded prompts are kept (the same bits, sooner); benchmarks forget them.
  void clear_prompt_cache() { text_.clear_cache(); }
  /// The same for the last encoded init image.
  void clear_input_cache() { input_.reset(); }
  /// Receives every tapped tensor until set to null.
  void set_tap(device::TapSink* sink) { context_->set_tap(sink); }
  /// Sees every op until set to null; meanwhile nothing is captured and nothing runs beside another.
  void set_op_observer(device::OpObserver* observer) { context_->set_op_observer(observer); }
  /// Receives every call of the transformer in advance() until set to nothing.
  void set_call_observer(CallObserver observer) { on_call_ = std::move(observer); }
  const models::Sd35& model() const { return model_; }
  std::size_t arena_bytes() const { return arena_.capacity_bytes() + side_arena_.capacity_bytes(); }
  /// Pictures that one forward holds at a request's size: what was asked for at load, else as many as fill the device.
  int images_per_forward(const generation::GenerationRequest& request) const;

 private:
  friend Result<std::unique_ptr<Pipeline>> load_pipeline(const weights::ModelFiles& files, const LoadOptions& options);
  static Result<std::unique_ptr<Pipeline>> load(const weights::ModelFiles& files, const LoadOptions& options);
  /// The levels a request's pictures go through, and what takes them there.
  struct Path {
    const sampling::SamplerRow* sampler;
    sampling::Schedule schedule;  // may have a step more or less than asked for (sampling/schedule.h)
  };
  /// What one picture's loop works on, allocated before its first step.
  struct Run;
  /// The last init image as the encoder sees it: every picture of a call starts from the same.
  struct EncodedInput {
    generation::GenerationRequest request;  // whose pictures and their geometry it was made of
    std::vector<float> moments;             // [height, width, 2 C]
    std::vector<float> mask;                // as InputPixels
    bool matches(const generation::GenerationRequest& other) const;
  };

  Result<generation::GenerationResult> draw(const generation::GenerationRequest& request,
                                            const generation::RunControl& control);
  explicit Pipeline(models::Sd35 model) : model_(std::move(model)) {}
  Result<Path> path_of(const generation::GenerationRequest& request) const;
  /// Grows the arenas to the peak of every stage at this request's shape and so many pictures, learnt by a dry run.
  Status plan(const generation::GenerationRequest& request, std::span<const TextTokens> branches, std::int64_t images);
  /// Runs `work` dry and grows the arenas to what it took.
  Status reserve_for(const std::function<void()>& work);
  /// The step of a shape, made or found; the last few shapes are kept.
  Result<TransformerStep*> step_of(const StepShape& shape);
  Result<const EncodedInput*> encode_input(const generation::GenerationRequest& request);
  /// Replaces the state's latents by the init image at noise level `sigma`.
  Status start_from_image(DenoiseState& state, float sigma);
  Result<Run> start_run(std::span<const DenoiseState> states);
  /// Model, guidance and skip-layer guidance at a sigma that the run announced: [B, C, height, width] f32 both.
  void guided_velocity(Run& run, int step, const TensorView& latents, float sigma, const TensorView& out);
  Result<device::Buffer> allocate(std::size_t bytes) { return device_->allocate(bytes); }

  std::unique_ptr<device::Device> device_;
  std::unique_ptr<device::Stream> stream_;
  device::Arena arena_, side_arena_;
  std::unique_ptr<device::ExecutionContext> side_context_, context_;
  int images_per_forward_ = 0;
  device::Buffer step_flags_;  // two i32 in pinned memory: whether the latents after even and odd steps were finite
  models::Sd35 model_;
  DType dtype_ = DType::kF32;
  bool fp8_attention_ = false;
  generation::Capabilities capabilities_;
  TextConditioner text_{model_};
  std::optional<EncodedInput> input_;
  std::list<std::unique_ptr<TransformerStep>> steps_;  // most recently used first
  CallObserver on_call_;
};

/// Loads a model of any layout and logs what was found and chosen, and why. Errors name the file, tensor or flag.
Result<std::unique_ptr<Pipeline>> load_pipeline(const weights::ModelFiles& files, const LoadOptions& options);

}  // namespace octavo::pipeline
