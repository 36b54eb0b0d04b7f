#include "compute_flags.h"

namespace octavo::app {

void add_compute_flags(CLI::App& command, ComputeFlags& flags) {
  command
      .add_option("--device", flags.device,
                  "auto (a GPU that can be used, else the CPU), cpu, cuda or cuda:N; `octavo devices` lists them")
      ->capture_default_str();
  command
      .add_option("--force-arch", flags.force_architecture,
                  "80, 89 or 90: choose kernels as on a GPU of this compute capability, at most its own (for tests)")
      ->check(CLI::IsMember({80, 89, 90}));
  command
      .add_option(
          "--vram", flags.vram,
          "What stays in a GPU's memory: full (everything), balanced (text encoders and modulation weights come from "
          "host memory when they are used), min (the same, and the autoencoder in bands)")
      ->capture_default_str();
  command
      .add_option("--images-per-forward", flags.images_per_forward,
                  "Pictures of a request that are drawn together on a GPU (0 = as many as fill it)")
      ->check(CLI::Range(0, 8));
  command.add_flag("--fp8-attention", flags.fp8_attention,
                   "Attention of the transformer with q and k in E4M3 (GPUs of compute capability 9.0): a few per cent "
                   "of a step quicker, less exact (docs/quality.md)");
  command.add_option("--kernel", flags.kernels, "Force a kernel: op=row, as `octavo bench` lists them (repeatable)");
  command.add_option("--threads", flags.threads, "CPU threads (0 = all)")->capture_default_str();
}

Result<device::DeviceChoice> device_choice(const ComputeFlags& flags) {
  OCTAVO_ASSIGN_OR_RETURN(device::DeviceChoice choice, device::parse_device(flags.device));
  if (flags.force_architecture != 0 && choice.kind == device::DeviceChoice::Kind::kCpu) {
    return invalid_argument("--force-arch", "is of GPUs, and --device is cpu");
  }
  choice.cuda.force_architecture = flags.force_architecture;
  choice.threads = flags.threads;
  return choice;
}

Result<pipeline::LoadOptions> load_options(const ComputeFlags& flags, const std::string& precision) {
  OCTAVO_ASSIGN_OR_RETURN(const device::DeviceChoice choice, device_choice(flags));
  // Its rows can be named by --kernel only when it is open; why it cannot be opened is said when the device is made.
  if (choice.kind != device::DeviceChoice::Kind::kCpu) (void)device::open_cuda_backend().ok();
  OCTAVO_ASSIGN_OR_RETURN(auto options, pipeline::parse_load_options(precision, flags.kernels, flags.threads));
  options.device = choice;
  OCTAVO_ASSIGN_OR_RETURN(options.vram, pipeline::parse_vram(flags.vram));
  options.images_per_forward = flags.images_per_forward;
  options.fp8_attention = flags.fp8_attention;
  return options;
}

}  // namespace octavo::app
