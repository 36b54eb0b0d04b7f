// Host memory to the GPU as fast as the bus takes it: checkpoints are mapped files, which the GPU cannot read directly.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>

namespace octavo::device::cuda {

/// Copies through a ring of pinned slots; each slot is filled by several threads while those before it are on their
/// way. One thread at a time.
class Uploader {
 public:
  Uploader() = default;
  ~Uploader();
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;
  /// Worth it from this size on.
  static constexpr std::size_t kLeastBytes = std::size_t{1} << 20;
  /// Returns when `source` has been read; the copy is ordered on `stream`.
  void upload(cudaStream_t stream, void* destination, const void* source, std::size_t bytes);

 private:
  static constexpr std::size_t kSlotBytes = std::size_t{16} << 20;
  static constexpr int kSlots = 4;
  void start();
  std::array<void*, kSlots> slots_{};
  std::array<cudaEvent_t, kSlots> events_{};
  int next_ = 0;
};

}  // namespace octavo::device::cuda
