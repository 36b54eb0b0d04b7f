#include "generate.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "compute_flags.h"
#include "generation/infotext.h"
#include "image/codec.h"
#include "image/infotext.h"
#include "image_flags.h"
#include "model_path.h"
#include "pipeline/pipeline.h"
#include "progress_bar.h"
#include "sampling/sampler.h"
#include "sampling/schedule.h"
#include "telemetry/stages.h"
#include "version.h"

namespace octavo::app {
namespace {

namespace fs = std::filesystem;

struct GenerateOptions {
  generation::GenerationRequest request;
  ImageFlags images;
  ModelFlags model;
  std::string out = "octavo.png";
  image::EncodeOptions encoding;
  std::string precision = "auto";
  std::string vae_memory = "auto";
  ComputeFlags compute;
};

/// The flag behind a request's field, for messages: what a person typed.
std::string flag_of(const std::string& field) {
  if (field == "negative_prompt") return "--negative";
  if (field == "guidance_scale") return "--guidance";
  if (field == "image_count") return "--batch";
  if (field == "negative_prompt_2") return "--negative-2";
  if (field == "negative_prompt_3") return "--negative-3";
  if (field == "noise_source") return "--noise";
  if (const std::string flag = image_flag_of(field); !flag.empty()) return flag;
  std::string flag = "--" + field;
  std::replace(flag.begin(), flag.end(), '_', '-');
  return flag;
}

/// name.png for one picture, name-0.png, name-1.png, ... for several.
fs::path picture_path(const std::string& out, std::size_t index, std::size_t count) {
  const fs::path path(out);
  if (count == 1) return path;
  return path.parent_path() / (path.stem().string() + "-" + std::to_string(index) + path.extension().string());
}

/// Found out before the picture is drawn, not after.
Status check_writable(const fs::path& path) {
  std::error_code error;
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  if (!fs::is_directory(folder, error)) return not_found("--out", "the folder " + folder.string() + " does not exist");
  if (fs::is_directory(path, error)) return invalid_argument("--out", path.string() + " is a folder");
  return {};
}

/// Beside the target first, then renamed: nobody reads half a picture.
Status write_file(const fs::path& path, const std::vector<std::uint8_t>& bytes) {
  const fs::path temporary = path.string() + ".partial";
  std::ofstream file(temporary, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  file.close();
  std::error_code error;
  if (file.good()) fs::rename(temporary, path, error);
  if (!file.good() || error) {
    fs::remove(temporary, error);
    return resource_exhausted("--out", path.string() + " cannot be written");
  }
  return {};
}

/// `picture` as a file of the format that --out names. Errors name the flag.
Result<std::vector<std::uint8_t>> encode_picture(const GenerateOptions& options, const image::Image& picture,
                                                 const image::Infotext& infotext) {
  const auto format = image::format_of_name(options.out);
  if (!format) {
    return invalid_argument("--out", options.out + " does not end in one of " + image::known_extensions());
  }
  image::EncodeOptions encoding = options.encoding;
  encoding.parameters = image::format_infotext(infotext);
  auto bytes = image::encode(picture, *format, encoding);
  if (bytes.ok()) return bytes;
  const Status& error = bytes.status();
  const bool of_a_flag = error.subject() == "quality" || error.subject() == "lossless";
  return Status(error.code(), error.message(), of_a_flag ? "--" + error.subject() : "--out");
}

/// "euler (Euler): first order, ..." for each row of the table.
std::string sampler_help() {
  std::string text = "Sampler, by name or A1111's; a schedule may follow it, as in \"DPM++ 2M Karras\" (default: ";
  text += std::string(sampling::sampler_rows().front().name) + "):";
  for (const sampling::SamplerRow& row : sampling::sampler_rows()) {
    text += fmt::format("\n  {} ({}): {}", row.name, row.label, row.summary);
  }
  return text;
}

std::string schedule_help() {
  std::string names;
  for (const sampling::ScheduleRow& row : sampling::schedule_rows()) {
    names += (names.empty() ? "" : ", ") + std::string(row.name);
  }
  return "Noise schedule: " + names + " (default: the sampler's own)";
}

std::string eta_samplers() {
  std::string names;
  for (const sampling::SamplerRow& row : sampling::sampler_rows()) {
    if (row.uses_eta) names += (names.empty() ? "" : ", ") + std::string(row.name);
  }
  return names;
}

/// Zero, and a negative guidance, mean "the model's default" inside a request; typed by a person they are mistakes.
Status check_typed(const CLI::App& command, const generation::GenerationRequest& request) {
  const auto typed = [&command](const char* flag) { return command.count(flag) > 0; };
  if (typed("--width") && request.width == 0) return invalid_argument("--width", "0 pixels make no picture");
  if (typed("--height") && request.height == 0) return invalid_argument("--height", "0 pixels make no picture");
  if (typed("--steps") && request.steps == 0) return invalid_argument("--steps", "0 steps draw nothing");
  if (typed("--guidance") && !(request.guidance_scale >= 0)) {
    return invalid_argument("--guidance", "must be a number from 0 to 100");
  }
  if (typed("--shift") && request.shift == 0) return invalid_argument("--shift", "must be a number from 0.1 to 100");
  if (typed("--t5-length") && request.t5_length == 0) return invalid_argument("--t5-length", "must be at least 1");
  return {};
}

/// Layers, or a window, without a scale ask for skip-layer guidance all the same.
generation::GenerationRequest with_skip_layer_scale(const CLI::App& command, generation::GenerationRequest request) {
  const bool asked = command.count("--skip-layers") > 0 || command.count("--skip-layer-start") > 0 ||
                     command.count("--skip-layer-stop") > 0;
  if (asked && command.count("--skip-layer-scale") == 0) request.skip_layer_scale = generation::kDefaultSkipLayerScale;
  return request;
}

Status run_generate(const CLI::App& command, const GenerateOptions& options) {
  OCTAVO_RETURN_IF_ERROR(check_typed(command, options.request));
  OCTAVO_RETURN_IF_ERROR(check_writable(options.out));
  // What the flags, and later the parameters, ask of the file is tried on one pixel before a picture is drawn.
  const image::Image pixel{1, 1, 3, {0, 0, 0}};
  OCTAVO_RETURN_IF_ERROR(encode_picture(options, pixel, {}).status());
  generation::GenerationRequest request = options.request;
  OCTAVO_RETURN_IF_ERROR(read_image_flags(command, options.images, request));
  OCTAVO_ASSIGN_OR_RETURN(auto loading, load_options(options.compute, options.precision));
  OCTAVO_ASSIGN_OR_RETURN(loading.vae_memory, pipeline::parse_vae_memory(options.vae_memory));
  OCTAVO_ASSIGN_OR_RETURN(const auto files, find_model_files(options.model));
  const auto started = std::chrono::steady_clock::now();
  OCTAVO_ASSIGN_OR_RETURN(const auto pipe, pipeline::load_pipeline(files, loading));
  const double load_seconds = seconds(std::chrono::steady_clock::now() - started);
  const auto resolved = generation::resolve(with_skip_layer_scale(command, request), pipe->capabilities());
  if (!resolved.ok()) {
    const Status& error = resolved.status();
    return Status(error.code(), error.message(), flag_of(error.subject()));
  }
  const auto describe = [&](int image_index) {
    return generation::describe(*resolved, generation::image_seeds(*resolved, image_index), pipe->capabilities(),
                                kVersion);
  };
  OCTAVO_RETURN_IF_ERROR(encode_picture(options, pixel, describe(0)).status());

  Result<generation::GenerationResult> result = [&] {
    ProgressBar bar;
    generation::RunControl control;
    control.on_progress = [&bar](const generation::Progress& progress) { bar.show(progress); };
    return pipe->generate(*resolved, control);
  }();
  if (!result.ok()) return result.status();

  const auto encode_started = std::chrono::steady_clock::now();
  const std::size_t count = result->images.size();
  for (std::size_t i = 0; i < count; ++i) {
    const auto& picture = result->images[i];
    OCTAVO_ASSIGN_OR_RETURN(const auto bytes, encode_picture(options, picture.image, describe(static_cast<int>(i))));
    const fs::path file = picture_path(options.out, i, count);
    OCTAVO_RETURN_IF_ERROR(write_file(file, bytes));
    std::printf("%s  (seed %lld)\n", file.c_str(), static_cast<long long>(picture.seed));
  }
  result->stage_seconds[std::string(telemetry::kEncodeImage)] =
      seconds(std::chrono::steady_clock::now() - encode_started);
  std::printf("load %.3f s", load_seconds);
  for (const std::string_view stage : telemetry::kStages) {
    const auto found = result->stage_seconds.find(std::string(stage));
    if (found != result->stage_seconds.end()) std::printf(", %s %.3f s", found->first.c_str(), found->second);
  }
  std::printf("\n");
  return {};
}

}  // namespace

void add_generate(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<GenerateOptions>();
  auto& request = options->request;
  CLI::App* generate = app.add_subcommand("generate", "Draw pictures from a prompt");
  generate->add_option("-p,--prompt", request.prompt, "What to draw")->required();
  generate->add_option("-n,--negative", request.negative_prompt, "What to steer away from");
  generate->add_option("--prompt-2", request.prompt_2, "CLIP-G's own prompt (default: the prompt)");
  generate->add_option("--prompt-3", request.prompt_3, "T5's own prompt (default: the prompt)");
  generate->add_option("--negative-2", request.negative_prompt_2, "The same for the negative prompt");
  generate->add_option("--negative-3", request.negative_prompt_3, "The same for the negative prompt");
  generate->add_option("--prompt-syntax", request.prompt_syntax,
                       "a1111: (red:1.3), [dim], BREAK; comfyui; plain: literal, cut at 75 tokens (default: a1111)");
  generate->add_option("--clip-skip", request.clip_skip,
                       "CLIP's hidden state counted from the last; up to 2 is the model's own");
  generate->add_option("--seed", request.seed, "Picture i is drawn from seed + i (default: random)");
  generate->add_option("--steps", request.steps, "Denoising steps (default: 28)");
  generate->add_option("--guidance", request.guidance_scale,
                       "Classifier-free guidance scale; 1 and below turn it off (default: 7)");
  generate->add_option("--width", request.width, "Pixels (default: the model's)");
  generate->add_option("--height", request.height, "Pixels (default: the model's)");
  generate->add_option("--batch", request.image_count, "Number of pictures")->capture_default_str();
  generate->add_option("--sampler", request.sampler, sampler_help());
  generate->add_option("--schedule", request.schedule, schedule_help());
  generate->add_option("--shift", request.shift, "Shift of the schedule, 0.1 to 100 (default: the model's own, 3)");
  generate->add_option("--eta", request.eta, "Fresh noise that " + eta_samplers() + " add, 0 to 1 (default: 1)");
  generate->add_option("--s-noise", request.s_noise, "Factor on that noise, 0 to 10 (default: 1)");
  generate->add_option("--noise", request.noise_source,
                       "Generator of the noise: cpu (torch's on the CPU) or nv (NVIDIA's, A1111's NV) (default: cpu)");
  generate->add_option("--subseed", request.subseed, "Variation seed; picture i uses subseed + i (default: random)");
  generate->add_option("--subseed-strength", request.subseed_strength,
                       "How far the noise leans from the seed's to the subseed's, 0 to 1 (default: 0)");
  generate->add_option("--t5-length", request.t5_length,
                       "T5 tokens with padding; changes the picture (default: 256 or the model's limit)");
  generate->add_option("--skip-layer-scale", request.skip_layer_scale,
                       "Skip-layer guidance, for Stable Diffusion 3.5 Medium: 0 = off, 2.8 is usual");
  generate->add_option("--skip-layers", request.skip_layers, "Blocks that it leaves out (default: 7,8,9)")
      ->delimiter(',');
  generate->add_option("--skip-layer-start", request.skip_layer_start,
                       "Fraction of the steps after which it begins (default: 0.01)");
  generate->add_option("--skip-layer-stop", request.skip_layer_stop,
                       "Fraction of the steps before which it ends (default: 0.2)");
  add_image_flags(*generate, options->images, request);
  add_model_flags(*generate, options->model);
  add_synthetic_flag(*generate, options->model);
  generate->add_option("-o,--out", options->out, "File to write, .png, .jpg or .webp; several pictures get -0, -1, ...")
      ->capture_default_str();
  generate->add_option("--quality", options->encoding.quality,
                       fmt::format("Of a JPEG or WebP, 1 to 100 (default: {})", image::kDefaultQuality));
  generate->add_flag("--lossless", options->encoding.lossless, "Of a WebP: lose nothing");
  add_precision_flag(*generate, options->precision);
  generate
      ->add_option("--vae-memory", options->vae_memory,
                   "Autoencoder on whole maps, in bands (slower, a quarter of the memory), or auto")
      ->capture_default_str();
  add_compute_flags(*generate, options->compute);
  generate->callback([options, generate, &exit_code] {
    const Status status = run_generate(*generate, *options);
    if (!status.ok()) {
      std::fprintf(stderr, "octavo generate: %s\n", status.to_string().c_str());
      exit_code = 1;
    }
  });
}

}  // namespace octavo::app
