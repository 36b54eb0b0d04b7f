#include "device/cuda/memory_cache.h"

#include <algorithm>

#include "device/cuda/cuda_device.h"

namespace octavo::device::cuda {
namespace {

constexpr std::size_t kSmallGrain = 512;
constexpr std::size_t kLargeGrain = std::size_t{2} << 20;  // the driver's own page

std::size_t rounded(std::size_t bytes) {
  const std::size_t grain = bytes < kLargeGrain / 2 ? kSmallGrain : kLargeGrain;
  return (bytes + grain - 1) / grain * grain;
}

}  // namespace

MemoryCache& MemoryCache::instance() {
  static auto* cache = new MemoryCache;  // never destroyed: Buffers may outlive main
  return *cache;
}

Result<Buffer> MemoryCache::allocate(std::size_t bytes) {
  if (bytes == 0) return Buffer();
  const std::size_t size = rounded(bytes);
  if (size < bytes) return resource_exhausted("GPU memory", "the size overflows");
  const std::lock_guard lock(mutex_);
  const auto count = [&](std::size_t used) {
    statistics_.used_bytes += used;
    statistics_.peak_used_bytes = std::max(statistics_.peak_used_bytes, statistics_.used_bytes);
  };
  // A block up to an eighth larger will do.
  if (const auto found = kept_.lower_bound(size); found != kept_.end() && found->first <= size + size / 8) {
    check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    void* data = found->second;
    count(bytes);
    kept_.erase(found);
    return Buffer(data, bytes, give_back);
  }
  void* data = nullptr;
  cudaError_t result = cudaMalloc(&data, size);
  if (result == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    trim_locked();
    result = cudaMalloc(&data, size);
  }
  if (result == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    std::size_t available = 0, total = 0;
    cudaMemGetInfo(&available, &total);
    constexpr double kGiB = 1u << 30;
    return resource_exhausted(
        "GPU memory",
        fmt::format(
            "{:.2f} GiB could not be allocated: {:.2f} of {:.2f} GiB are free, this process holds {:.2f}; use a "
            "smaller picture or batch, --vram balanced or min, or free the GPU of other processes",
            static_cast<double>(size) / kGiB, static_cast<double>(available) / kGiB, static_cast<double>(total) / kGiB,
            static_cast<double>(statistics_.reserved_bytes) / kGiB));
  }
  check(result, "cudaMalloc");
  ++statistics_.driver_allocations;
  statistics_.reserved_bytes += size;
  statistics_.peak_reserved_bytes = std::max(statistics_.peak_reserved_bytes, statistics_.reserved_bytes);
  sizes_[data] = size;
  count(bytes);
  return Buffer(data, bytes, give_back);
}

void MemoryCache::give_back(void* data, std::size_t bytes) { instance().release(data, bytes); }

void MemoryCache::release(void* data, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  statistics_.used_bytes -= bytes;
  kept_.emplace(sizes_.at(data), data);
}

MemoryStatistics MemoryCache::statistics() const {
  const std::lock_guard lock(mutex_);
  return statistics_;
}

void MemoryCache::trim() {
  const std::lock_guard lock(mutex_);
  trim_locked();
}

void MemoryCache::trim_locked() {
  cudaDeviceSynchronize();
  for (const auto& [size, data] : kept_) {
    cudaFree(data);  // a failure is the context's end, which the next call tells
    sizes_.erase(data);
    statistics_.reserved_bytes -= size;
  }
  kept_.clear();
}

}  // namespace octavo::device::cuda
