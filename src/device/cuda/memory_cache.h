// Device memory that was given back is kept and handed out again: after the first picture of a shape nothing asks the
// driver any more.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <unordered_map>

#include "device/device.h"

namespace octavo::device::cuda {

/// From any thread. Blocks are reused only when the device has finished all that was enqueued before they were given
/// back.
class MemoryCache {
 public:
  static MemoryCache& instance();
  /// 256-byte aligned; kResourceExhausted, after everything kept was freed, when the driver has no more.
  Result<Buffer> allocate(std::size_t bytes);
  MemoryStatistics statistics() const;
  /// Frees all that is kept.
  void trim();

 private:
  static void give_back(void* data, std::size_t bytes);
  void release(void* data, std::size_t bytes);
  void trim_locked();
  mutable std::mutex mutex_;
  std::multimap<std::size_t, void*> kept_;        // by size
  std::unordered_map<void*, std::size_t> sizes_;  // of every block of the driver's
  MemoryStatistics statistics_;
};

}  // namespace octavo::device::cuda
