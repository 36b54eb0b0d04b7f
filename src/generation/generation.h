// The words both columns share: what is asked for, how far it is, what came out. Plain values, no behaviour
// beyond validation; a dialect (api/a1111) fills a GenerationRequest, the pipeline turns it into a GenerationResult.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "image/image.h"
#include "image/resize.h"

namespace octavo::generation {

/// What the repainted area holds before denoising begins (A1111's "masked content").
enum class MaskedContent { kOriginal, kLatentNoise, kLatentNothing };

/// One call's worth of pictures. The image depends on this value alone.
struct GenerationRequest {
  std::string prompt;           // UTF-8, at most kMaxPromptBytes
  std::string negative_prompt;  // encoded like a prompt; "" is encoded too
  int width = 0;                // pixels; 0 = the model's default
  int height = 0;
  int steps = 0;  // 0 = the model's default
  double guidance_scale =
      -1;                  // classifier-free guidance; <= 1 runs the conditional branch only; < 0 = the model's default
  std::int64_t seed = -1;  // image i of the call uses seed + i (image_seeds); -1 = drawn at random by resolve()
  std::string noise_source;     // "" = "cpu": torch's CPU generator; "nv": NVIDIA's Philox, as A1111's source NV
  std::int64_t subseed = -1;    // variation seed, see image_seeds; -1 = drawn at random by resolve()
  double subseed_strength = 0;  // 0 = the seed's noise, 1 = the subseed's
  int seed_resize_width = 0;    // pixels; both above 0: the noise keeps the middle of what the seed gives at this size
  int seed_resize_height = 0;
  int image_count = 1;   // pictures in this call (A1111: batch_size * n_iter)
  std::string sampler;   // "" = the model's default; any name of Capabilities::samplers, a schedule may follow it
  std::string schedule;  // "" or "automatic" = the sampler's default
  double shift = 0;      // of the schedule; 0 = the model's own
  double eta = 1;        // how much fresh noise an ancestral or SDE sampler adds, 0 to 1; others ignore it
  double s_noise = 1;    // factor on that noise
  int t5_length = 0;     // T5 tokens with padding (comfyui: at least); 0 = the model's default (comfyui: 77)
  std::string prompt_2;  // CLIP-G's own prompt; "" = `prompt`, which is CLIP-L's
  std::string prompt_3;  // T5's own prompt; "" = `prompt`
  std::string negative_prompt_2, negative_prompt_3;  // the same for `negative_prompt`
  std::string prompt_syntax;                         // one of kPromptSyntaxes: how weights are written; "" = the first
  int clip_skip = 0;  // CLIP's hidden state counted from the last layer, as A1111 counts; up to 2 = the model's own.
                      // diffusers' clip_skip k is k + 2 here; "plain" skips for the prompt alone, as diffusers does
  // Skip-layer guidance: in the steps i with skip_layer_start * steps < i < skip_layer_stop * steps (i from 0), a third
  // forward leaves these blocks out of the transformer and the picture is pushed away from it. Needs guidance above 1.
  double skip_layer_scale = 0;   // 0 = off
  std::vector<int> skip_layers;  // numbers of blocks; empty = kDefaultSkipLayers
  double skip_layer_start = 0.01;
  double skip_layer_stop = 0.2;
  bool keep_partial = false;  // interrupted: return what is drawn (A1111) instead of an error

  // Pictures as input. A size of 0 is then the picture's own, if the model can draw it.
  std::shared_ptr<const image::Image> init_image;  // what to start from (alpha over white); null = noise alone
  std::shared_ptr<const image::Image> mask;        // white = repaint; any size; null = everything
  double strength = 0.75;                          // (0, 1]: how much of the schedule runs; 1 starts from noise
  image::FitMode resize_mode = image::FitMode::kStretch;
  int mask_blur = 4;         // pixels, standard deviation of a Gaussian; 0 = none
  bool mask_invert = false;  // black = repaint
  bool only_masked = false;  // draw the mask's surroundings at width x height, then paste them back
  int mask_padding = 32;     // with only_masked: pixels around the mask
  MaskedContent masked_content = MaskedContent::kOriginal;
};

inline constexpr std::size_t kMaxPromptBytes = 64 * 1024;
inline constexpr int kMaxImageCount = 64;
/// "a1111" and "comfyui" read weights as those do and take prompts of any length in chunks of 75 tokens; "plain" is
/// literal and cut, as in diffusers. A prompt of at most 75 tokens without special characters is the same in all.
inline constexpr std::array<std::string_view, 3> kPromptSyntaxes = {"a1111", "comfyui", "plain"};
/// What Stability recommends for Stable Diffusion 3.5 Medium, and diffusers' scale.
inline constexpr std::array<int, 3> kDefaultSkipLayers = {7, 8, 9};
inline constexpr double kDefaultSkipLayerScale = 2.8;
inline constexpr int kMaxMaskBlur = 64;
inline constexpr int kMaxMaskPadding = 256;

/// A sampler or schedule as users may name it. Filled from sampling's tables.
struct NamedChoice {
  std::string name;                  // canonical: "euler_ancestral"
  std::string label;                 // as A1111 lists it: "Euler a"
  std::vector<std::string> aliases;  // lower case
  std::string schedule;              // of a sampler: its default schedule's name
  bool uses_eta = false;             // of a sampler

  /// `text` is the name, the label or an alias, in any case.
  bool answers_to(std::string_view text) const;
};

/// The first choice that answers to `text`, or null.
const NamedChoice* find_choice(const std::vector<NamedChoice>& choices, std::string_view text);

/// What a loaded model can do; validation and the API's listings read it.
struct Capabilities {
  std::string model_name;  // "octavo-tiny"
  std::string model_hash;  // first 10 hex digits of a hash over the weights' headers; "" when unknown
  int size_multiple = 16;  // width and height must be multiples of it
  int min_size = 128;      // pixels a side
  int max_size = 384;
  int default_width = 256;
  int default_height = 256;
  int default_steps = 28;
  int max_steps = 200;
  double default_guidance_scale = 7.0;
  int layer_count = 6;  // blocks of the transformer
  int max_t5_length = 77;
  int default_t5_length = 77;
  int max_clip_skip = 12;              // layers of the smaller CLIP encoder
  bool image_input = false;            // the autoencoder has an encoder: init_image works
  std::vector<NamedChoice> samplers;   // first = default
  std::vector<NamedChoice> schedules;  // first = default
};

/// A sampler's name, alone or followed by a schedule's as A1111 before 1.9 wrote them ("DPM++ 2M Karras"), told apart.
/// Null pointers: what is not there or not known.
struct SamplerAndSchedule {
  const NamedChoice* sampler = nullptr;
  const NamedChoice* schedule = nullptr;
};
SamplerAndSchedule find_sampler_and_schedule(std::string_view text, const Capabilities& capabilities);

/// The seeds of picture `image_index` of a resolved request, as A1111 counts them: seed + i, or with a variation the
/// same seed for all and subseed + i.
struct ImageSeeds {
  std::int64_t seed = 0;
  std::int64_t subseed = 0;
};
ImageSeeds image_seeds(const GenerationRequest& request, int image_index);

/// Fills every default, makes sampler and schedule canonical names, draws the seed when it is negative, and refuses
/// what the model cannot do with kInvalidArgument whose subject is the field's name as in GenerationRequest ("width",
/// "steps", ...). Prompts must be valid UTF-8 without NUL and at most kMaxPromptBytes.
Result<GenerationRequest> resolve(GenerationRequest request, const Capabilities& capabilities);

/// Where a running call is.
struct Progress {
  int image_index = 0;  // 0-based picture being drawn
  int image_count = 0;
  int step = 0;  // steps finished of the current picture
  int steps = 0;
  std::string stage;         // telemetry stage name: "encode_text", "denoise", "decode"
  double fraction() const {  // of the whole call, 0..1
    if (image_count <= 0 || steps <= 0) return 0.0;
    return (image_index + static_cast<double>(step) / steps) / image_count;
  }
};

/// Set by any thread, looked at by the pipeline at step borders.
class CancelToken {
 public:
  CancelToken() : state_(std::make_shared<std::atomic<bool>>(false)) {}
  void cancel() const { state_->store(true, std::memory_order_relaxed); }
  bool cancelled() const { return state_->load(std::memory_order_relaxed); }

 private:
  std::shared_ptr<std::atomic<bool>> state_;  // copies share one flag
};

/// How the caller watches and stops a run. on_progress is called from the engine's thread and must not block.
struct RunControl {
  std::function<void(const Progress&)> on_progress;
  CancelToken cancel;
  std::optional<Clock::TimePoint> deadline;  // kDeadlineExceeded at the next step border after it
};

struct GeneratedImage {
  image::Image image;  // RGB
  std::int64_t seed = 0;
};

struct GenerationResult {
  GenerationRequest request;                    // resolved: what was really drawn
  std::vector<GeneratedImage> images;           // fewer than image_count only when interrupted with keep_partial
  std::map<std::string, double> stage_seconds;  // keyed by telemetry stage names
  bool interrupted = false;
};

/// What a generator throws when it cannot run anything any more (a GPU whose context is lost): its process must end.
class GeneratorLost : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// What runs requests: the pipeline behind a worker, or testing's fake. Called from one thread at a time.
class Generator {
 public:
  virtual ~Generator() = default;
  virtual const Capabilities& capabilities() const = 0;
  /// `request` must be resolved. Errors: kCancelled, kDeadlineExceeded, kInternal (NaN), kInvalidArgument,
  /// kResourceExhausted (memory; the next request may run). Throws GeneratorLost.
  virtual Result<GenerationResult> generate(const GenerationRequest& request, const RunControl& control) = 0;
};

}  // namespace octavo::generation
