// The CPU as a Device: aligned memory, a stream on which everything is done when the call returns.
#include <sys/mman.h>

#include <chrono>
#include <cstdlib>
#include <cstring>

#include "base/check.h"
#include "device/cpu/cpu_info.h"
#include "device/device.h"

namespace octavo::device {
namespace {

constexpr std::size_t kSmallAlignment = 256;      // a whole number of cache lines and vectors; Arena::kAlignment
constexpr std::size_t kHugePageBytes = 2u << 20;  // x86-64 and most of arm64

void free_aligned(void* data, std::size_t) { std::free(data); }

class CpuEvent final : public Event {
 public:
  double seconds_since(const Event& earlier) const override {
    return std::chrono::duration<double>(at_ - static_cast<const CpuEvent&>(earlier).at_).count();
  }
  void wait() const override {}

 private:
  std::chrono::steady_clock::time_point at_ = std::chrono::steady_clock::now();
};

class CpuStream final : public Stream {
 public:
  void synchronize() override {}
  bool supports_capture() const override { return false; }
  void begin_capture() override { OCTAVO_CHECK(false, "the CPU has no graphs: run the ops again"); }
  std::unique_ptr<Graph> end_capture() override { OCTAVO_CHECK(false, "the CPU has no graphs: run the ops again"); }
  std::unique_ptr<Event> record_event() override { return std::make_unique<CpuEvent>(); }
};

std::string describe(const DeviceTraits& traits) {
  const char* isa = traits.has_avx512_bf16 ? "AVX-512 BF16"
                    : traits.has_avx512    ? "AVX-512"
                    : traits.has_avx2      ? "AVX2"
                                           : "baseline instructions";
  return fmt::format("{}, {} thread{}, {}", processor_name(), traits.thread_count, traits.thread_count == 1 ? "" : "s",
                     isa);
}

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(int thread_count) {
    detect_instruction_sets(traits_);
    traits_.kind = DeviceKind::kCpu;
    traits_.thread_count = thread_count;
    traits_.total_memory_bytes = physical_memory_bytes();
    traits_.preferred_dtype = traits_.has_avx512_bf16 ? DType::kBF16 : DType::kF32;
    traits_.name = describe(traits_);
  }

  const DeviceTraits& traits() const override { return traits_; }

  Result<Buffer> allocate(std::size_t bytes, MemoryKind) override {
    if (bytes == 0) return Buffer();
    const bool huge = bytes >= kHugePageBytes;
    const std::size_t alignment = huge ? kHugePageBytes : kSmallAlignment;
    const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    // rounded < bytes: the sum wrapped around.
    void* data = rounded < bytes ? nullptr : std::aligned_alloc(alignment, rounded);
    if (data == nullptr) {
      return resource_exhausted("memory", fmt::format("{} bytes could not be allocated on the CPU; use a smaller "
                                                      "picture, batch or model, or a machine with more memory",
                                                      bytes));
    }
    // Advice only: fewer misses of the address cache in weights and activations; refusal changes nothing.
    if (huge) madvise(data, rounded, MADV_HUGEPAGE);
    return Buffer(data, bytes, free_aligned);
  }

  std::unique_ptr<Stream> create_stream() override { return std::make_unique<CpuStream>(); }
  void copy_to_device(Stream&, void* destination, const void* source, std::size_t bytes) override {
    if (bytes > 0) std::memcpy(destination, source, bytes);
  }
  void copy_to_host(Stream&, void* destination, const void* source, std::size_t bytes) override {
    if (bytes > 0) std::memcpy(destination, source, bytes);
  }
  void copy_within(Stream&, void* destination, const void* source, std::size_t bytes) override {
    if (bytes > 0) std::memmove(destination, source, bytes);
  }

 private:
  DeviceTraits traits_;
};

}  // namespace

std::unique_ptr<Device> create_cpu_device(int thread_count) {
  OCTAVO_CHECK(thread_count >= 0, "{} threads", thread_count);
  return std::make_unique<CpuDevice>(thread_count > 0 ? thread_count : available_threads());
}

}  // namespace octavo::device
