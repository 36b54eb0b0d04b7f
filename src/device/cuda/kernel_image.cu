// Whether this library was compiled for the GPU at hand: asked before the first kernel would fail.
#include <cuda_runtime.h>

namespace octavo::device::cuda {
namespace {

__global__ void empty_kernel() {}

}  // namespace

cudaError_t find_kernel_image();
cudaError_t find_kernel_image() {
  cudaFuncAttributes attributes{};
  return cudaFuncGetAttributes(&attributes, empty_kernel);
}

}  // namespace octavo::device::cuda
