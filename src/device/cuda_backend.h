// The CUDA backend: a shared library of ours (liboctavo_cuda.so) beside the program, opened when a GPU is asked for or
// looked for. The program itself links no CUDA library and starts where there is none.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "device/device.h"

namespace octavo::device {

struct CudaOptions {
  int index = 0;  // of the GPU, as CUDA_VISIBLE_DEVICES leaves them
  /// 80 | 89 | 90: choose kernels as on a GPU of this compute capability, to test them on a newer one; 0 = the GPU's
  /// own.
  int force_architecture = 0;
};

/// What the library exports through octavo_cuda_backend(). It must be of the program's own build.
struct CudaBackend {
  const char* build = nullptr;  // a hash of the headers that program and library share
  /// GPUs that can be used, in words; a Status that says what is missing (driver, library) when none can.
  Result<std::vector<std::string>> (*list_devices)() = nullptr;
  Result<std::unique_ptr<Device>> (*create_device)(const CudaOptions& options) = nullptr;
  /// Adds the CUDA rows to the tables of all ops; at most once a process, before the first op runs.
  void (*add_rows)() = nullptr;
};
inline constexpr const char* kCudaBackendSymbol = "octavo_cuda_backend";

/// Opens the library (once a process; later calls give the same answer) and adds its rows. It is looked for where
/// OCTAVO_CUDA_BACKEND says, else beside the program and in ../lib. kUnavailable names the library that is missing, be
/// it ours, cuBLASLt or cuDNN, which are taken from the loader's path, from the folder this was built with or from
/// those in OCTAVO_CUDA_LIBRARY_PATH (separated by colons).
Result<const CudaBackend*> open_cuda_backend();

/// Which device to compute on.
struct DeviceChoice {
  enum class Kind { kAuto, kCpu, kCuda };
  Kind kind = Kind::kAuto;  // auto: a GPU when one can be used, else the CPU
  CudaOptions cuda;
  int threads = 0;  // of the CPU; 0 = every core
};
/// "auto", "cpu", "cuda", "cuda:1"; errors name the flag --device.
Result<DeviceChoice> parse_device(const std::string& text);
/// Says in the log what was chosen when it was to be chosen here. kUnavailable when a GPU was asked for and none can be
/// used.
Result<std::unique_ptr<Device>> create_device(const DeviceChoice& choice);

}  // namespace octavo::device
