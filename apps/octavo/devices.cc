#include "devices.h"

#include <cstdio>

#include "device/cuda_backend.h"

namespace octavo::app {
namespace {

Result<std::vector<std::string>> list_gpus() {
  OCTAVO_ASSIGN_OR_RETURN(const device::CudaBackend* backend, device::open_cuda_backend());
  return backend->list_devices();
}

void run_devices() {
  const auto cpu = device::create_cpu_device();
  std::printf("cpu     %s\n", cpu->traits().name.c_str());
  const auto gpus = list_gpus();
  if (!gpus.ok()) {
    std::printf("cuda    none: %s\n", gpus.status().message().c_str());
    return;
  }
  for (const std::string& gpu : *gpus) std::printf("%s\n", gpu.c_str());
}

}  // namespace

void add_devices(CLI::App& app, int& /*exit_code*/) {
  app.add_subcommand("devices", "List what --device can name, and why there is no GPU")->callback(run_devices);
}

}  // namespace octavo::app
