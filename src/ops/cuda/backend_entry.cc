// What liboctavo_cuda.so exports.
#include "device/cuda/cuda_device.h"
#include "ops/cuda/cuda_rows.h"

namespace {

using octavo::device::CudaBackend;

octavo::Result<std::vector<std::string>> list_devices() {
  int count = 0;
  const cudaError_t result = cudaGetDeviceCount(&count);
  if (result != cudaSuccess) {
    cudaGetLastError();
    return octavo::unavailable("CUDA", fmt::format("no GPU can be used: {}", cudaGetErrorString(result)));
  }
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties{};
    octavo::device::cuda::check(cudaGetDeviceProperties(&properties, i), "cudaGetDeviceProperties");
    names.push_back(fmt::format("cuda:{} {}, {:.0f} GiB, compute capability {}.{}", i, properties.name,
                                static_cast<double>(properties.totalGlobalMem) / (1u << 30), properties.major,
                                properties.minor));
  }
  return names;
}

const CudaBackend kBackend{OCTAVO_CUDA_BUILD, list_devices, octavo::device::cuda::CudaDevice::create,
                           octavo::ops::add_cuda_rows};

}  // namespace

extern "C" __attribute__((visibility("default"))) const CudaBackend* octavo_cuda_backend() { return &kBackend; }
