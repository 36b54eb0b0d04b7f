// Scalars that a library reads from device memory, from the host's: by a kernel's parameters, so that a captured graph
// holds the values and no host memory has to outlive a call.
#include "device/cuda/cuda_launch.h"
#include "ops/attention/cuda/attention_rows.h"

namespace octavo::ops {
namespace {

struct Scalars {
  float values[kScalarCount];
};

__global__ void write_scalars_kernel(const Scalars scalars, float* to) {
  if (threadIdx.x < kScalarCount) to[threadIdx.x * (kScalarBytes / sizeof(float))] = scalars.values[threadIdx.x];
}

}  // namespace

void write_scalars(cudaStream_t stream, const std::array<float, kScalarCount>& values, void* to) {
  Scalars scalars;
  for (std::size_t i = 0; i < kScalarCount; ++i) scalars.values[i] = values[i];
  write_scalars_kernel<<<1, 32, 0, stream>>>(scalars, static_cast<float*>(to));
  device::cuda::check_launch("attention scalars");
}

}  // namespace octavo::ops
