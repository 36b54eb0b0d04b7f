// The GPU as a Device, and what rows of ops need of it. Included in folders named cuda only.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>

#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "device/cuda_backend.h"
#include "device/execution_context.h"

namespace octavo::device::cuda {

class MemoryCache;
class Uploader;

/// Throws for a CUDA call that failed: DeviceError when the context is lost (every later call would fail too),
/// std::bad_alloc when memory is short, CheckFailure otherwise. `what` names the call.
void check(cudaError_t result, const char* what);
/// After a launch.
void check_launch(const char* kernel);
void check(cublasStatus_t result, const char* what);
void check(cudnnStatus_t result, const char* what);

class CudaStream final : public Stream {
 public:
  CudaStream();
  ~CudaStream() override;
  cudaStream_t handle() const { return handle_; }
  /// Whether a graph is being captured: an op may then not time, allocate or synchronise.
  bool capturing() const;

  void synchronize() override;
  bool supports_capture() const override { return true; }
  void begin_capture() override;
  std::unique_ptr<Graph> end_capture() override;
  Stream* side() override;
  void fork() override;
  void join() override;
  std::unique_ptr<Event> record_event() override;

 private:
  cudaStream_t handle_ = nullptr;
  std::unique_ptr<CudaStream> side_;
  cudaEvent_t forked_ = nullptr, joined_ = nullptr;
};

/// One GPU; a process uses one.
class CudaDevice final : public Device {
 public:
  static Result<std::unique_ptr<Device>> create(const CudaOptions& options);
  ~CudaDevice() override;

  const DeviceTraits& traits() const override { return traits_; }
  Result<Buffer> allocate(std::size_t bytes, MemoryKind kind) override;
  std::unique_ptr<Stream> create_stream() override;
  /// Large copies from memory that is not pinned go through pinned staging, filled by several threads.
  void copy_to_device(Stream& stream, void* destination, const void* source, std::size_t bytes) override;
  void copy_to_host(Stream& stream, void* destination, const void* source, std::size_t bytes) override;
  void copy_within(Stream& stream, void* destination, const void* source, std::size_t bytes) override;
  void attach_thread() override;
  MemoryStatistics memory_statistics() const override;
  void begin_range(const char* name) override;
  void end_range() override;

  int architecture() const { return traits_.compute_capability; }
  int multiprocessors() const { return traits_.multiprocessors; }
  const std::string& gpu_name() const { return gpu_name_; }
  /// Made at first use. One thread at a time, as everything of a context.
  cublasLtHandle_t lt();
  cudnnHandle_t cudnn();
  /// Where choices of algorithms are kept between runs; may not exist yet.
  const std::filesystem::path& cache_folder() const { return cache_folder_; }

 private:
  CudaDevice() = default;
  DeviceTraits traits_;
  int index_ = 0;
  std::string gpu_name_;
  std::filesystem::path cache_folder_;
  std::unique_ptr<Uploader> uploader_;
  cublasLtHandle_t lt_ = nullptr;
  cudnnHandle_t cudnn_ = nullptr;
};

inline cudaStream_t stream_of(const ExecutionContext& context) {
  return static_cast<CudaStream&>(context.stream()).handle();
}
inline CudaDevice& device_of(const ExecutionContext& context) { return static_cast<CudaDevice&>(context.device()); }
/// cudaSuccess when this library holds kernels for the current GPU (kernel_image.cu).
cudaError_t find_kernel_image();
/// True for memory that a kernel may read: device memory, not the host's.
bool on_device(const void* pointer);

}  // namespace octavo::device::cuda
