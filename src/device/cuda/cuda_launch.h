// What .cu files share: small device helpers and nothing heavy.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "tensor/tensor.h"

namespace octavo::device {
class ExecutionContext;
}

namespace octavo::device::cuda {

// cuda_device.h has the contracts; declared here so that kernels compile without cuBLASLt's and cuDNN's headers.
void check(cudaError_t result, const char* what);
void check_launch(const char* kernel);
/// The context's stream and the GPU's multiprocessors, for launches.
cudaStream_t launch_stream(const ExecutionContext& context);
int multiprocessors_of(const ExecutionContext& context);

}  // namespace octavo::device::cuda
