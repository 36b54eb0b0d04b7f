// step_latents: runs a pipeline's denoise loop and writes its latents, for comparisons too large for a fixture.
//
//     octavo_step_latents MODEL PROMPT WIDTH HEIGHT STEPS GUIDANCE SEED OUT.safetensors
//
// Arithmetic is f32. Prints seconds and what the process holds in memory, one "name value" a line.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "pipeline/pipeline.h"
#include "weights/safetensors.h"

namespace octavo {
namespace {

Status run(char** argument) {
  pipeline::LoadOptions options;
  options.precision = pipeline::LoadOptions::Precision::kF32;
  const auto started = std::chrono::steady_clock::now();
  OCTAVO_ASSIGN_OR_RETURN(const auto pipeline, pipeline::load_pipeline(argument[1], options));
  std::printf("load_seconds %.2f\n", seconds(std::chrono::steady_clock::now() - started));
  generation::GenerationRequest wanted;
  wanted.prompt = argument[2];
  wanted.width = std::atoi(argument[3]);
  wanted.height = std::atoi(argument[4]);
  wanted.steps = std::atoi(argument[5]);
  wanted.guidance_scale = std::atof(argument[6]);
  wanted.seed = std::atoll(argument[7]);
  OCTAVO_ASSIGN_OR_RETURN(const auto request, generation::resolve(wanted, pipeline->capabilities()));
  OCTAVO_ASSIGN_OR_RETURN(pipeline::DenoiseState state, pipeline->begin(request, 0));
  const auto begun = std::chrono::steady_clock::now();
  OCTAVO_RETURN_IF_ERROR(pipeline->advance(state, request.steps, {}));
  std::printf("denoise_seconds %.2f\n", seconds(std::chrono::steady_clock::now() - begun));
  std::printf("arena_mib %.0f\n", static_cast<double>(pipeline->arena_bytes()) / (1 << 20));
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    for (const char* field : {"VmHWM", "RssAnon", "RssFile"}) {
      if (!line.starts_with(field)) continue;
      std::printf("%s_mib %.0f\n", field, std::atof(line.c_str() + line.find(':') + 1) / 1024);
    }
  }
  const std::vector<weights::NamedTensor> tensors = {
      {"latents", TensorView(static_cast<void*>(state.sampler.latents.data()), DType::kF32, state.sampler.shape)}};
  return weights::write_safetensors(argument[8], tensors);
}

}  // namespace
}  // namespace octavo

int main(int count, char** arguments) {
  if (count != 9) {
    std::fprintf(stderr, "usage: %s MODEL PROMPT WIDTH HEIGHT STEPS GUIDANCE SEED OUT\n", arguments[0]);
    return 2;
  }
  const octavo::Status status = octavo::run(arguments);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.to_string().c_str());
  return status.ok() ? 0 : 1;
}
