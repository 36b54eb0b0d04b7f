#include "device/cuda/cuda_device.h"

#include <nvtx3/nvToolsExt.h>

#include <cstdlib>
#include <new>

#include "device/cuda/memory_cache.h"
#include "device/cuda/uploader.h"

namespace octavo::device::cuda {
namespace {

/// After these nothing works any more in this process: the context is lost.
bool is_lost(cudaError_t error) {
  switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorLaunchFailure:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorDevicesUnavailable:
    case cudaErrorContextIsDestroyed:
    case cudaErrorMpsRpcFailure:
    case cudaErrorUnknown:
      return true;
    default:
      return false;
  }
}

std::filesystem::path find_cache_folder() {
  if (const char* own = std::getenv("OCTAVO_CACHE"); own != nullptr && *own != '\0') return own;
  if (const char* xdg = std::getenv("XDG_CACHE_HOME"); xdg != nullptr && *xdg != '\0') {
    return std::filesystem::path(xdg) / "octavo";
  }
  const char* home = std::getenv("HOME");
  if (home != nullptr && *home != '\0') return std::filesystem::path(home) / ".cache" / "octavo";
  return "/dev/null/octavo";  // nowhere: what others can write is not to be trusted with what a GPU runs
}

class CudaGraph final : public Graph {
 public:
  CudaGraph(cudaGraph_t graph, cudaStream_t stream) : stream_(stream) {
    check(cudaGraphInstantiate(&executable_, graph, 0), "cudaGraphInstantiate");
  }
  ~CudaGraph() override { cudaGraphExecDestroy(executable_); }
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;
  void launch() override { check(cudaGraphLaunch(executable_, stream_), "cudaGraphLaunch"); }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t executable_ = nullptr;
};

class CudaEvent final : public Event {
 public:
  explicit CudaEvent(cudaStream_t stream) {
    check(cudaEventCreate(&handle_), "cudaEventCreate");
    check(cudaEventRecord(handle_, stream), "cudaEventRecord");
  }
  ~CudaEvent() override { cudaEventDestroy(handle_); }
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;
  double seconds_since(const Event& earlier) const override {
    const auto& before = static_cast<const CudaEvent&>(earlier);
    check(cudaEventSynchronize(before.handle_), "cudaEventSynchronize");
    check(cudaEventSynchronize(handle_), "cudaEventSynchronize");
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, before.handle_, handle_), "cudaEventElapsedTime");
    return milliseconds * 1e-3;
  }
  void wait() const override { check(cudaEventSynchronize(handle_), "cudaEventSynchronize"); }

 private:
  cudaEvent_t handle_ = nullptr;
};

/// For a library's call that failed: whether memory was the reason. Then the caller may try again, with all that there
/// is. cuDNN calls a lack of memory an internal error: what its handles and modules take is less than this.
bool memory_is_short() {
  constexpr std::size_t kEnough = std::size_t{192} << 20;
  std::size_t available = 0, total = 0;
  const bool short_now = cudaMemGetInfo(&available, &total) == cudaSuccess && available < kEnough;
  if (!short_now) return false;
  cudaGetLastError();
  MemoryCache::instance().trim();  // what is only kept may be all that the next try needs
  return true;
}

void free_pinned(void* data, std::size_t) { cudaFreeHost(data); }

}  // namespace

void check(cudaError_t result, const char* what) {
  if (result == cudaSuccess) return;
  cudaGetLastError();
  const std::string message = fmt::format("{}: {} ({})", what, cudaGetErrorString(result), cudaGetErrorName(result));
  if (is_lost(result)) throw DeviceError("the GPU is lost: " + message);
  if (result == cudaErrorMemoryAllocation) throw std::bad_alloc();
  OCTAVO_CHECK(false, "{}", message);
}

void check_launch(const char* kernel) { check(cudaGetLastError(), kernel); }

void check(cublasStatus_t result, const char* what) {
  if (result == CUBLAS_STATUS_SUCCESS) return;
  if (result == CUBLAS_STATUS_ALLOC_FAILED || memory_is_short()) throw std::bad_alloc();
  check(cudaPeekAtLastError(), what);
  OCTAVO_CHECK(false, "{}: {}", what, cublasLtGetStatusName(result));
}

void check(cudnnStatus_t result, const char* what) {
  if (result == CUDNN_STATUS_SUCCESS) return;
  char detail[512] = "";
  cudnnGetLastErrorString(detail, sizeof detail);
  if (memory_is_short()) throw std::bad_alloc();
  check(cudaPeekAtLastError(), what);
  OCTAVO_CHECK(false, "{}: {} {}", what, cudnnGetErrorString(result), detail);
}

bool on_device(const void* pointer) {
  cudaPointerAttributes attributes{};
  if (cudaPointerGetAttributes(&attributes, pointer) != cudaSuccess) {
    cudaGetLastError();
    return false;
  }
  return attributes.type == cudaMemoryTypeDevice;
}

CudaStream::CudaStream() {
  check(cudaStreamCreateWithFlags(&handle_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
}

CudaStream::~CudaStream() {
  if (forked_ != nullptr) cudaEventDestroy(forked_);
  if (joined_ != nullptr) cudaEventDestroy(joined_);
  side_.reset();
  cudaStreamDestroy(handle_);
}

bool CudaStream::capturing() const {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(handle_, &status), "cudaStreamIsCapturing");
  return status != cudaStreamCaptureStatusNone;
}

void CudaStream::synchronize() { check(cudaStreamSynchronize(handle_), "cudaStreamSynchronize"); }

void CudaStream::begin_capture() {
  check(cudaStreamBeginCapture(handle_, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
}

std::unique_ptr<Graph> CudaStream::end_capture() {
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(handle_, &graph), "cudaStreamEndCapture");
  const std::unique_ptr<CUgraph_st, decltype(&cudaGraphDestroy)> owned(graph, cudaGraphDestroy);
  return std::make_unique<CudaGraph>(graph, handle_);
}

Stream* CudaStream::side() {
  if (!side_) {
    side_ = std::make_unique<CudaStream>();
    check(cudaEventCreateWithFlags(&forked_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    check(cudaEventCreateWithFlags(&joined_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  }
  return side_.get();
}

void CudaStream::fork() {
  check(cudaEventRecord(forked_, handle_), "cudaEventRecord");
  check(cudaStreamWaitEvent(side_->handle(), forked_, 0), "cudaStreamWaitEvent");
}

void CudaStream::join() {
  check(cudaEventRecord(joined_, side_->handle()), "cudaEventRecord");
  check(cudaStreamWaitEvent(handle_, joined_, 0), "cudaStreamWaitEvent");
}

std::unique_ptr<Event> CudaStream::record_event() { return std::make_unique<CudaEvent>(handle_); }

Result<std::unique_ptr<Device>> CudaDevice::create(const CudaOptions& options) {
  int count = 0;
  cudaError_t result = cudaGetDeviceCount(&count);
  if (result != cudaSuccess) {
    cudaGetLastError();
    return unavailable("CUDA", fmt::format("no GPU can be used: {}", cudaGetErrorString(result)));
  }
  if (options.index >= count) {
    return unavailable("--device", fmt::format("cuda:{} does not exist; this machine has {} GPU{}", options.index,
                                               count, count == 1 ? "" : "s"));
  }
  result = cudaSetDevice(options.index);
  if (result == cudaSuccess) result = cudaFree(nullptr);  // makes the context: failures show here
  if (result != cudaSuccess) {
    cudaGetLastError();
    return unavailable("CUDA", fmt::format("cuda:{} cannot be used: {}", options.index, cudaGetErrorString(result)));
  }
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, options.index), "cudaGetDeviceProperties");
  const int own = properties.major * 10 + properties.minor;
  if (own < 80) {
    return unavailable("CUDA", fmt::format("{} has compute capability {}.{}; 8.0 (A100) or later is needed",
                                           properties.name, properties.major, properties.minor));
  }
  if (const cudaError_t image = find_kernel_image(); image != cudaSuccess) {
    cudaGetLastError();
    return unavailable("CUDA", fmt::format("this build has no kernels for {} (sm_{}): build again with "
                                           "OCTAVO_CUDA_ARCHITECTURES={}",
                                           properties.name, own, own == 90 ? "90a" : std::to_string(own)));
  }
  if (options.force_architecture > own) {
    return invalid_argument(
        "--force-arch", fmt::format("{} is more than {} has ({})", options.force_architecture, properties.name, own));
  }
  std::unique_ptr<CudaDevice> device(new CudaDevice);
  DeviceTraits& traits = device->traits_;
  traits.kind = DeviceKind::kCuda;
  traits.compute_capability = options.force_architecture > 0 ? options.force_architecture : own;
  traits.multiprocessors = properties.multiProcessorCount;
  traits.total_memory_bytes = properties.totalGlobalMem;
  traits.most_images_per_forward = 8;
  traits.preferred_dtype = DType::kBF16;
  traits.preferred_residual_dtype = DType::kBF16;
  traits.fuses_quantisation = true;
  device->index_ = options.index;
  device->gpu_name_ = properties.name;
  traits.name = fmt::format("{}, {:.0f} GiB, sm_{}{}", properties.name,
                            static_cast<double>(properties.totalGlobalMem) / (1u << 30), own,
                            options.force_architecture > 0 ? fmt::format(" as sm_{}", options.force_architecture) : "");
  device->cache_folder_ = find_cache_folder();
  device->uploader_ = std::make_unique<Uploader>();
  return std::unique_ptr<Device>(std::move(device));
}

CudaDevice::~CudaDevice() {
  if (lt_ != nullptr) cublasLtDestroy(lt_);
  if (cudnn_ != nullptr) cudnnDestroy(cudnn_);
}

Result<Buffer> CudaDevice::allocate(std::size_t bytes, MemoryKind kind) {
  if (kind == MemoryKind::kDevice) return MemoryCache::instance().allocate(bytes);
  if (bytes == 0) return Buffer();
  void* data = nullptr;
  const cudaError_t result = cudaHostAlloc(&data, bytes, cudaHostAllocDefault);
  if (result == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return resource_exhausted("memory", fmt::format("{} bytes of pinned host memory could not be allocated", bytes));
  }
  check(result, "cudaHostAlloc");
  return Buffer(data, bytes, free_pinned);
}

std::unique_ptr<Stream> CudaDevice::create_stream() { return std::make_unique<CudaStream>(); }

void CudaDevice::copy_to_device(Stream& stream, void* destination, const void* source, std::size_t bytes) {
  if (bytes == 0) return;
  const cudaStream_t handle = static_cast<CudaStream&>(stream).handle();
  if (bytes >= Uploader::kLeastBytes) {
    cudaPointerAttributes attributes{};
    const bool known = cudaPointerGetAttributes(&attributes, source) == cudaSuccess;
    if (!known) cudaGetLastError();
    if (!known || attributes.type == cudaMemoryTypeUnregistered) {
      uploader_->upload(handle, destination, source, bytes);
      return;
    }
  }
  check(cudaMemcpyAsync(destination, source, bytes, cudaMemcpyDefault, handle), "cudaMemcpyAsync");
}

void CudaDevice::copy_to_host(Stream& stream, void* destination, const void* source, std::size_t bytes) {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(destination, source, bytes, cudaMemcpyDefault, static_cast<CudaStream&>(stream).handle()),
        "cudaMemcpyAsync");
}

void CudaDevice::copy_within(Stream& stream, void* destination, const void* source, std::size_t bytes) {
  if (bytes == 0) return;
  check(
      cudaMemcpyAsync(destination, source, bytes, cudaMemcpyDeviceToDevice, static_cast<CudaStream&>(stream).handle()),
      "cudaMemcpyAsync");
}

void CudaDevice::attach_thread() { check(cudaSetDevice(index_), "cudaSetDevice"); }

MemoryStatistics CudaDevice::memory_statistics() const { return MemoryCache::instance().statistics(); }

void CudaDevice::begin_range(const char* name) { nvtxRangePushA(name); }
void CudaDevice::end_range() { nvtxRangePop(); }

cublasLtHandle_t CudaDevice::lt() {
  if (lt_ == nullptr) check(cublasLtCreate(&lt_), "cublasLtCreate");
  return lt_;
}

cudnnHandle_t CudaDevice::cudnn() {
  if (cudnn_ == nullptr) check(cudnnCreate(&cudnn_), "cudnnCreate");
  return cudnn_;
}

// For .cu files (cuda_launch.h), which do not see this header.
cudaStream_t launch_stream(const ExecutionContext& context);
int multiprocessors_of(const ExecutionContext& context);
cudaStream_t launch_stream(const ExecutionContext& context) { return stream_of(context); }
int multiprocessors_of(const ExecutionContext& context) { return device_of(context).multiprocessors(); }

}  // namespace octavo::device::cuda
