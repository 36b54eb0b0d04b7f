// What a model computes on and with: the flags that every command with a model has.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "base/status.h"
#include "device/cuda_backend.h"
#include "pipeline/pipeline.h"

namespace octavo::app {

struct ComputeFlags {
  std::string device = "auto";
  int force_architecture = 0;
  std::vector<std::string> kernels;
  int threads = 0;
  std::string vram = "full";
  int images_per_forward = 0;
  bool fp8_attention = false;
};

/// --device, --force-arch, --vram, --images-per-forward, --fp8-attention, --kernel, --threads.
void add_compute_flags(CLI::App& command, ComputeFlags& flags);

/// Errors name the flag.
Result<device::DeviceChoice> device_choice(const ComputeFlags& flags);

/// As load_pipeline() takes them, `precision` with them.
Result<pipeline::LoadOptions> load_options(const ComputeFlags& flags, const std::string& precision);

}  // namespace octavo::app
