// From a path and flags to a pipeline that is ready.
#include <algorithm>
#include <array>
#include <chrono>
#include <limits>
#include <new>

#include "base/log.h"
#include "ops/all_ops.h"
#include "ops/attention/attention.h"
#include "pipeline/pipeline.h"
#include "sampling/schedule.h"

namespace octavo::pipeline {
namespace {

constexpr int kDiffusersSteps = 28;  // StableDiffusion3Pipeline's own defaults
constexpr double kDiffusersGuidance = 7.0;
constexpr int kTurboSteps = 4;  // distilled for few steps without guidance (Stability-AI/sd3.5, sd3_infer.py)
constexpr double kTurboGuidance = 1.0;

generation::Capabilities describe(const models::Sd35& model) {
  generation::Capabilities can;
  can.model_name = model.limits.name;
  can.model_hash = model.limits.hash;
  can.size_multiple = model.limits.size_multiple;
  can.min_size = model.limits.min_size;
  can.max_size = model.limits.max_size;
  can.default_width = can.default_height = model.limits.default_size;
  const bool turbo = model.limits.family == weights::Family::kLargeTurbo;
  can.default_steps = turbo ? kTurboSteps : kDiffusersSteps;
  can.default_guidance_scale = turbo ? kTurboGuidance : kDiffusersGuidance;
  can.layer_count = model.mmdit.config().layers;
  can.max_t5_length = model.limits.max_t5_length;
  can.default_t5_length = model.limits.default_t5_length;
  can.max_clip_skip = model.limits.max_clip_skip;
  can.image_input = model.encoder.has_value();
  can.samplers.clear();
  for (const auto& row : sampling::sampler_rows()) {
    can.samplers.push_back({std::string(row.name),
                            std::string(row.label),
                            {row.aliases.begin(), row.aliases.end()},
                            std::string(row.default_schedule),
                            row.uses_eta});
  }
  can.schedules.clear();
  for (const auto& row : sampling::schedule_rows()) {
    can.schedules.push_back({.name = std::string(row.name),
                             .label = std::string(row.label),
                             .aliases = {row.aliases.begin(), row.aliases.end()},
                             .schedule = ""});
  }
  return can;
}

struct PrecisionRow {
  std::string_view word;
  LoadOptions::Precision precision;
};
constexpr std::array<PrecisionRow, 5> kPrecisions = {{{"auto", LoadOptions::Precision::kAuto},
                                                      {"f32", LoadOptions::Precision::kF32},
                                                      {"bf16", LoadOptions::Precision::kBf16},
                                                      {"fp8", LoadOptions::Precision::kFp8},
                                                      {"w8a16", LoadOptions::Precision::kW8a16}}};

layers::Precision precision_of(LoadOptions::Precision precision, DType preferred) {
  switch (precision) {
    case LoadOptions::Precision::kF32:
      return {DType::kF32, layers::WeightPrecision::kWidened};
    case LoadOptions::Precision::kBf16:
      return {DType::kBF16, layers::WeightPrecision::kWidened};
    case LoadOptions::Precision::kFp8:
      return {preferred, layers::WeightPrecision::kQuantized};
    case LoadOptions::Precision::kW8a16:
      return {preferred, layers::WeightPrecision::kWeightsQuantized};
    case LoadOptions::Precision::kAuto:
      break;
  }
  return preferred;
}

/// "w8a8 in 114 layers, w8a16 in 24"; empty without 8-bit layers.
std::string forms_in_words(const layers::WeightForms& forms) {
  std::string words;
  if (forms.w8a8 > 0) {
    words =
        fmt::format("w8a8 in {} layers{}", forms.w8a8, forms.static_inputs == forms.w8a8 ? " with static scales" : "");
  }
  if (forms.w8a16 > 0) words += fmt::format("{}w8a16 in {}", words.empty() ? "" : ", ", forms.w8a16);
  if (forms.w8a16 > 0 && forms.w8a8 == 0) words += " layers";
  return words.empty() || forms.quantized_at_load == 0 ? words : words + ", quantised at load";
}

}  // namespace

std::string Pipeline::arithmetic() const {
  const std::string transformer = forms_in_words(model_.mmdit.forms());
  const std::string t5 = model_.encoder_t5 ? forms_in_words(model_.encoder_t5->forms()) : "";
  std::string words = transformer;
  const auto add = [&words](const std::string& more) { words += (words.empty() ? "" : ", ") + more; };
  if (fp8_attention_) add("attention in e4m3");
  if (!t5.empty()) add("T5 " + t5);
  add((words.empty() ? "" : "else ") + std::string(dtype_name(dtype_)));
  return words;
}

Result<LoadOptions> parse_load_options(const std::string& precision, const std::vector<std::string>& kernels,
                                       int threads) {
  LoadOptions options;
  const auto known = std::ranges::find(kPrecisions, precision, &PrecisionRow::word);
  if (known == kPrecisions.end()) {
    return invalid_argument("--precision", "must be auto, f32, bf16, fp8 or w8a16, not '" + precision + "'");
  }
  options.precision = known->precision;
  for (const std::string& kernel : kernels) {
    const std::size_t equals = kernel.find('=');
    if (equals == std::string::npos) return invalid_argument("--kernel", "'" + kernel + "' is not op=row");
    options.kernels[kernel.substr(0, equals)] = kernel.substr(equals + 1);
  }
  OCTAVO_RETURN_IF_ERROR(ops::check_overrides(options.kernels));
  if (threads < 0 || threads > 1024) {
    return invalid_argument("--threads", fmt::format("{} is outside 0 (every core) to 1024", threads));
  }
  options.threads = threads;
  return options;
}

Result<LoadOptions::VaeMemory> parse_vae_memory(const std::string& name) {
  if (name == "auto") return LoadOptions::VaeMemory::kAuto;
  if (name == "whole") return LoadOptions::VaeMemory::kWhole;
  if (name == "bands") return LoadOptions::VaeMemory::kBands;
  return invalid_argument("--vae-memory", "must be auto, whole or bands, not '" + name + "'");
}

Result<LoadOptions::Vram> parse_vram(const std::string& name) {
  if (name == "full") return LoadOptions::Vram::kFull;
  if (name == "balanced") return LoadOptions::Vram::kBalanced;
  if (name == "min") return LoadOptions::Vram::kMin;
  return invalid_argument("--vram", "must be full, balanced or min, not '" + name + "'");
}

Result<std::unique_ptr<Pipeline>> Pipeline::load(const weights::ModelFiles& files, const LoadOptions& options) {
  const auto started = std::chrono::steady_clock::now();
  device::DeviceChoice choice = options.device;
  choice.threads = options.threads;
  OCTAVO_ASSIGN_OR_RETURN(auto device, device::create_device(choice));
  const device::DeviceTraits& traits = device->traits();
  layers::Precision precision = precision_of(options.precision, options.activations.value_or(traits.preferred_dtype));
  const bool on_gpu = traits.kind != device::DeviceKind::kCpu;
  if (precision.activations == DType::kBF16) {
    precision.residuals = options.residuals.value_or(traits.preferred_residual_dtype);
  }
  precision.quantize_t5 = options.quantize_t5.value_or(on_gpu);
  precision.attention_codes = options.fp8_attention;
  precision.static_amax = options.static_amax;
  models::Residencies residencies;
  if (on_gpu && options.vram != LoadOptions::Vram::kFull) {
    residencies = {.text_encoders = layers::Residency::kStreamed, .modulations = layers::Residency::kStreamed};
  }
  const bool asked =
      options.precision == LoadOptions::Precision::kF32 || options.precision == LoadOptions::Precision::kBf16;
  const std::string_view reason = asked                                      ? "--precision asks for it"
                                  : traits.kind == device::DeviceKind::kCuda ? "GPUs multiply it fastest"
                                  : traits.preferred_dtype == DType::kBF16   ? "the processor has AVX512-BF16"
                                                                             : "the processor has no AVX512-BF16";
  OCTAVO_ASSIGN_OR_RETURN(const auto checkpoint, weights::ModelCheckpoint::open(files));
  spdlog::info("{}", checkpoint.findings());
  OCTAVO_ASSIGN_OR_RETURN(models::Sd35 model, models::Sd35::load(*device, checkpoint, precision, residencies));
  models::AutoencoderMemory memory;
  const bool least = on_gpu && options.vram == LoadOptions::Vram::kMin;
  if (options.vae_memory == LoadOptions::VaeMemory::kBands ||
      (least && options.vae_memory == LoadOptions::VaeMemory::kAuto)) {
    memory.whole_pixels = 0;
  }
  if (options.vae_memory == LoadOptions::VaeMemory::kWhole) {
    memory.whole_pixels = std::numeric_limits<std::int64_t>::max();
  }
  if (on_gpu && options.vae_memory == LoadOptions::VaeMemory::kAuto && options.vram == LoadOptions::Vram::kFull) {
    // Whole maps of Stable Diffusion 3.5's autoencoder take 2 KiB a pixel in bf16; an eighth of the GPU may go there.
    constexpr std::size_t kWholeBytesPerPixel = 2048, kShare = 8;
    const std::size_t pixels = traits.total_memory_bytes / kShare / kWholeBytesPerPixel;
    memory.whole_pixels = std::max(memory.whole_pixels, static_cast<std::int64_t>(pixels));
  }
  model.decoder.set_memory(memory);
  if (model.encoder) model.encoder->set_memory(memory);
  std::unique_ptr<Pipeline> pipeline(new Pipeline(std::move(model)));
  pipeline->device_ = std::move(device);
  pipeline->stream_ = pipeline->device_->create_stream();
  pipeline->context_ =
      std::make_unique<device::ExecutionContext>(*pipeline->device_, *pipeline->stream_, pipeline->arena_);
  if (device::Stream* side = pipeline->stream_->side(); side != nullptr) {
    pipeline->side_context_ =
        std::make_unique<device::ExecutionContext>(*pipeline->device_, *side, pipeline->side_arena_);
    pipeline->side_context_->set_kernel_overrides(options.kernels);
    pipeline->context_->set_side(pipeline->side_context_.get());
  }
  pipeline->context_->set_kernel_overrides(options.kernels);
  const models::MmditConfig& sizes = pipeline->model_.mmdit.config();
  if (options.fp8_attention && ops::plan_attention_operands(*pipeline->context_, precision.activations,
                                                            sizes.head_width, 1.0f, sizes.qk_norm, true)
                                       .q != DType::kE4M3) {
    return invalid_argument(
        "--fp8-attention",
        fmt::format(
            "{} has no attention in E4M3 for this model in {}: it needs a GPU of compute capability 9.0, heads of "
            "64 whose q and k have norms, bf16 beside it, and no other --kernel of attention",
            traits.name, dtype_name(precision.activations)));
  }
  pipeline->fp8_attention_ = options.fp8_attention;
  pipeline->images_per_forward_ = options.images_per_forward;
  OCTAVO_ASSIGN_OR_RETURN(pipeline->step_flags_,
                          pipeline->device_->allocate(2 * sizeof(std::int32_t), device::MemoryKind::kPinnedHost));
  pipeline->dtype_ = precision.activations;
  pipeline->capabilities_ = describe(pipeline->model_);
  spdlog::info("{}: {:.1f} MiB of weights on {}; arithmetic {} because {}; loaded in {:.3f} s",
               pipeline->capabilities_.model_name, static_cast<double>(pipeline->model_.weight_bytes) / (1 << 20),
               traits.name, dtype_name(precision.activations), reason,
               seconds(std::chrono::steady_clock::now() - started));
  if (on_gpu) {
    constexpr double kGiB = 1u << 30;
    const device::MemoryStatistics on_device = pipeline->memory_statistics();
    spdlog::info("{}: {:.2f} GiB on the GPU, at most {:.2f} while loading", pipeline->capabilities_.model_name,
                 static_cast<double>(on_device.used_bytes) / kGiB,
                 static_cast<double>(on_device.peak_used_bytes) / kGiB);
  }
  const layers::WeightForms& forms = pipeline->model_.mmdit.forms();
  if (forms.quantized_at_load > 0) {
    spdlog::info(
        "{}: {} layers of the transformer quantised at load in {:.0f} ms: products E4M3, modulations int8, one "
        "scale a channel{}",
        pipeline->capabilities_.model_name, forms.quantized_at_load, seconds(forms.quantizing) * 1e3,
        forms.w8a8 == 0             ? ""
        : precision.static_amax > 0 ? "; products and their E4M3 inputs with one scale each, not calibrated"
                                    : "; inputs E4M3, one scale a token");
  }
  if (const std::string words = pipeline->arithmetic(); words != dtype_name(precision.activations)) {
    spdlog::info("{}: {}", pipeline->capabilities_.model_name, words);
  }
  if (checkpoint.has_random_weights()) {
    spdlog::warn("{} has random weights: its pictures are noise", pipeline->capabilities_.model_name);
  }
  if (!pipeline->model_.encoder_t5) {
    spdlog::warn("{} has no T5 encoder: its part of the prompt is zeros, as in diffusers",
                 pipeline->capabilities_.model_name);
  }
  return pipeline;
}

Result<std::unique_ptr<Pipeline>> load_pipeline(const weights::ModelFiles& files, const LoadOptions& options) {
  try {
    return Pipeline::load(files, options);
  } catch (const std::bad_alloc&) {
    return resource_exhausted(
        "memory", "it ran out while loading; on a GPU --vram balanced or min and --precision fp8 need less");
  }
}

}  // namespace octavo::pipeline
