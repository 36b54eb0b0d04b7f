// The device layer: memory, streams, captured graphs, arenas and traits. It never knows an op.
//
// Ops enqueue work on a Stream and return; on the CPU the work is done when the call returns, on a GPU when the
// stream gets there. Nothing below allocates or synchronises between begin_capture() and end_capture(), so any
// sequence of ops can be captured and replayed.
// Threads: a Device may be used from any thread; a Stream, Arena or ExecutionContext from one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

#include "base/status.h"
#include "tensor/dtype.h"

namespace octavo::device {

enum class DeviceKind { kCpu, kCuda };
enum class MemoryKind { kDevice, kPinnedHost };

/// What kernels choose by.
struct DeviceTraits {
  DeviceKind kind = DeviceKind::kCpu;
  std::string name;      // "AMD EPYC, 2 threads, AVX-512 BF16"
  int thread_count = 1;  // CPU: threads that work on an op
  bool has_avx2 = false;
  bool has_avx512 = false;
  bool has_avx512_bf16 = false;  // the only CPU unit on which bf16 products beat f32
  int compute_capability = 0;    // CUDA: 90 for sm_90 (or the lower one that --force-arch asks for); 0 on the CPU
  int multiprocessors = 0;       // CUDA
  std::size_t total_memory_bytes = 0;
  /// Pictures that one forward holds at most unless a flag says otherwise: 1 on the CPU, where a bigger batch gains
  /// nothing and costs memory (docs/decisions/0002); more on a GPU, which small pictures do not fill one by one.
  int most_images_per_forward = 1;
  /// bf16 where it is fast, else f32.
  DType preferred_dtype = DType::kF32;
  /// Of the residual streams of the transformer when its products are fed with less than f32. On a GPU f32 streams cost
  /// memory traffic that shows (docs/performance.md), on the CPU they are free.
  DType preferred_residual_dtype = DType::kF32;
  /// Norms and activations write the codes of a product in 8 bits themselves: one pass over memory less. The same bits.
  bool fuses_quantisation = false;
};

/// What a device has handed out. All zero on the CPU, whose memory is the process's.
struct MemoryStatistics {
  std::size_t used_bytes = 0;            // in Buffers that are alive
  std::size_t peak_used_bytes = 0;       // the most that ever was
  std::size_t reserved_bytes = 0;        // taken from the driver: used, and kept for reuse
  std::size_t peak_reserved_bytes = 0;   // the most that ever was
  std::uint64_t driver_allocations = 0;  // calls to the driver for device memory; stands still after warm-up
};

/// A device that cannot be used any more (lost context); ends the worker process.
class DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Owns memory of one device; moves only.
class Buffer {
 public:
  using Deleter = void (*)(void* data, std::size_t bytes);
  Buffer() = default;
  Buffer(void* data, std::size_t bytes, Deleter deleter) : data_(data), bytes_(bytes), deleter_(deleter) {}
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer(std::move(other)).swap(*this);
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) deleter_(data_, bytes_);
  }
  void* data() const { return data_; }
  std::size_t byte_count() const { return bytes_; }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(deleter_, other.deleter_);
  }
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  Deleter deleter_ = nullptr;
};

/// A recorded sequence of ops, replayable on the stream that recorded it while its buffers live.
class Graph {
 public:
  virtual ~Graph() = default;
  virtual void launch() = 0;
};

/// A moment in a stream's work, to time by.
class Event {
 public:
  virtual ~Event() = default;
  /// From `earlier`, an event of the same device; waits until both are reached.
  virtual double seconds_since(const Event& earlier) const = 0;
  /// Returns when it is reached; throws DeviceError when the device is lost.
  virtual void wait() const = 0;
};

class Stream {
 public:
  virtual ~Stream() = default;
  /// Returns when everything enqueued is done; throws DeviceError when the device is lost.
  virtual void synchronize() = 0;
  /// Whether begin_capture() can work; false on the CPU, where the loop is simply run again.
  virtual bool supports_capture() const = 0;
  virtual void begin_capture() = 0;
  virtual std::unique_ptr<Graph> end_capture() = 0;

  /// A second stream for work that may run beside this one's, or null where there is none. What is enqueued on it
  /// between fork() and join() starts after all that was enqueued here before fork(), and is done before what is
  /// enqueued here after join(). Both can be captured.
  virtual Stream* side() { return nullptr; }
  virtual void fork() {}
  virtual void join() {}

  /// Reached when all that was enqueued before is done. Not while a graph is captured.
  virtual std::unique_ptr<Event> record_event() = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual const DeviceTraits& traits() const = 0;
  /// 64-byte aligned (256 on CUDA), contents undefined; kResourceExhausted when there is not enough.
  virtual Result<Buffer> allocate(std::size_t bytes, MemoryKind kind = MemoryKind::kDevice) = 0;
  virtual std::unique_ptr<Stream> create_stream() = 0;
  /// Ordered on `stream`; host memory should be pinned on CUDA to be asynchronous.
  virtual void copy_to_device(Stream& stream, void* destination, const void* source, std::size_t bytes) = 0;
  virtual void copy_to_host(Stream& stream, void* destination, const void* source, std::size_t bytes) = 0;
  /// Between two places of this device; ordered on `stream`, capturable.
  virtual void copy_within(Stream& stream, void* destination, const void* source, std::size_t bytes) = 0;
  /// Before the calling thread's first use of this device; cheap after it.
  virtual void attach_thread() {}
  virtual MemoryStatistics memory_statistics() const { return {}; }
  /// Opens and closes a named range for profilers (NVTX); costs nothing without one.
  virtual void begin_range(const char* /*name*/) {}
  virtual void end_range() {}
};

/// A named range for as long as it lives.
class ProfilerRange {
 public:
  ProfilerRange(Device& device, const char* name) : device_(device) { device_.begin_range(name); }
  ~ProfilerRange() { device_.end_range(); }
  ProfilerRange(const ProfilerRange&) = delete;
  ProfilerRange& operator=(const ProfilerRange&) = delete;

 private:
  Device& device_;
};

/// The CPU of this machine. `thread_count` 0 = every core this process may run on.
std::unique_ptr<Device> create_cpu_device(int thread_count = 0);

}  // namespace octavo::device
