#include "testing/allocation_counter.h"

#include "base/check.h"

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && defined(__GLIBC__)
#define OCTAVO_COUNTS_ALLOCATIONS 1
#include <dlfcn.h>
#include <execinfo.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>
#endif

#if OCTAVO_COUNTS_ALLOCATIONS

namespace {

/// Written without allocating: a slot is claimed by its module's base address.
struct Slot {
  std::atomic<void*> base{nullptr};
  std::atomic<const char*> name{nullptr};
  std::atomic<std::int64_t> count{0};
};
std::array<Slot, 32> slots;
std::atomic<bool> counting{false};
thread_local bool inside = false;  // the unwinder may allocate

/// Their allocations are their callers'.
bool is_runtime_library(std::string_view path) {
  const std::string_view file = path.substr(path.rfind('/') + 1);
  for (const std::string_view prefix : {"libc.so", "libstdc++.so", "libgcc_s.so", "libm.so", "libfmt.so", "ld-linux"}) {
    if (file.starts_with(prefix)) return true;
  }
  return false;
}

void count_for(const Dl_info& module) {
  for (Slot& slot : slots) {
    void* expected = nullptr;
    if (slot.base.compare_exchange_strong(expected, module.dli_fbase)) slot.name = module.dli_fname;
    if (slot.base == module.dli_fbase) {
      ++slot.count;
      return;
    }
  }
}

void count_allocation() {
  if (!counting.load(std::memory_order_relaxed) || inside) return;
  inside = true;
  std::array<void*, 24> frames{};
  const int depth = backtrace(frames.data(), static_cast<int>(frames.size()));
  constexpr int kOwnFrames = 2;  // this function and the malloc that called it
  for (int i = kOwnFrames; i < depth; ++i) {
    Dl_info module{};
    if (dladdr(frames[i], &module) == 0 || is_runtime_library(module.dli_fname)) continue;
    count_for(module);
    break;
  }
  inside = false;
}

}  // namespace

extern "C" {
void* __libc_malloc(std::size_t bytes);                           // NOLINT: the C library's name
void* __libc_calloc(std::size_t count, std::size_t bytes);        // NOLINT: the C library's name
void* __libc_realloc(void* data, std::size_t bytes);              // NOLINT: the C library's name
void* __libc_memalign(std::size_t alignment, std::size_t bytes);  // NOLINT: the C library's name

[[gnu::noinline]] void* malloc(std::size_t bytes) {
  count_allocation();
  return __libc_malloc(bytes);
}
[[gnu::noinline]] void* calloc(std::size_t count, std::size_t bytes) {
  count_allocation();
  return __libc_calloc(count, bytes);
}
[[gnu::noinline]] void* realloc(void* data, std::size_t bytes) {
  count_allocation();
  return __libc_realloc(data, bytes);
}
[[gnu::noinline]] void* memalign(std::size_t alignment, std::size_t bytes) {
  count_allocation();
  return __libc_memalign(alignment, bytes);
}
[[gnu::noinline]] void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  count_allocation();
  return __libc_memalign(alignment, bytes);
}
[[gnu::noinline]] int posix_memalign(void** data, std::size_t alignment, std::size_t bytes) {
  count_allocation();
  *data = __libc_memalign(alignment, bytes);
  return *data == nullptr ? ENOMEM : 0;
}
}

#endif

namespace octavo::testing {

#if OCTAVO_COUNTS_ALLOCATIONS

bool AllocationCounter::supported() { return true; }

AllocationCounter::AllocationCounter() {
  OCTAVO_CHECK(!counting, "another AllocationCounter counts");
  std::array<void*, 4> frames{};
  backtrace(frames.data(), static_cast<int>(frames.size()));  // loads the unwinder, which allocates, before counting
  for (Slot& slot : slots) {
    slot.base = nullptr;
    slot.count = 0;
  }
  counting = true;
}

std::vector<AllocationCounter::Owner> AllocationCounter::stop() {
  if (stopped_) return owners_;
  counting = false;
  stopped_ = true;
  Dl_info self{};
  OCTAVO_CHECK(dladdr(reinterpret_cast<void*>(&is_runtime_library), &self) != 0, "the executable has no address");
  for (const Slot& slot : slots) {
    if (slot.base == nullptr) continue;
    const std::string_view path = slot.name.load();
    owners_.push_back({.module = std::string(path.substr(path.rfind('/') + 1)),
                       .ours = slot.base == self.dli_fbase,
                       .count = slot.count});
  }
  std::stable_sort(owners_.begin(), owners_.end(), [](const Owner& a, const Owner& b) { return a.ours && !b.ours; });
  return owners_;
}

#else

bool AllocationCounter::supported() { return false; }
AllocationCounter::AllocationCounter() = default;
std::vector<AllocationCounter::Owner> AllocationCounter::stop() {
  stopped_ = true;
  return owners_;
}

#endif

AllocationCounter::~AllocationCounter() {
  if (!stopped_) stop();
}

std::int64_t AllocationCounter::stop_and_count_ours() {
  std::int64_t count = 0;
  for (const Owner& owner : stop()) {
    if (owner.ours) count += owner.count;
  }
  return count;
}

}  // namespace octavo::testing
