#include "device/cpu/parallel_for.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>

#include "base/check.h"

// ThreadSanitizer cannot see libgomp's barriers and would report every op as a race. Under it the work runs on plain
// threads, which it understands, and oneDNN on one thread: our own kernels are still checked.
#if defined(__SANITIZE_THREAD__)
#include <thread>
#include <vector>
#endif
#if defined(_OPENMP)
#include <omp.h>
#endif

namespace octavo::device {
namespace {

/// Keeps the first exception of any thread: one must not leave a parallel region.
class FirstException {
 public:
  void capture() {
    const std::lock_guard lock(mutex_);
    if (exception_ == nullptr) exception_ = std::current_exception();
  }
  void rethrow() const {
    if (exception_ != nullptr) std::rethrow_exception(exception_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr exception_;
};

/// Calls member(i) for i in [0, members), each on its own thread.
template <class Member>
void run_team(int members, const Member& member) {
#if defined(__SANITIZE_THREAD__)
  std::vector<std::thread> others;
  for (int i = 1; i < members; ++i) others.emplace_back([&member, i] { member(i); });
  member(0);
  for (std::thread& other : others) other.join();
#elif defined(_OPENMP)
// schedule(static, 1) over `members` indices: libgomp may give fewer threads than asked for, and each index still runs.
#pragma omp parallel for num_threads(members) schedule(static, 1)
  for (int i = 0; i < members; ++i) member(i);
#else
  for (int i = 0; i < members; ++i) member(i);
#endif
}

}  // namespace

namespace internal {

void run_parallel(int thread_count, std::int64_t count, std::int64_t grain, Schedule schedule, RangeFunction function,
                  const void* body) {
  OCTAVO_CHECK(grain >= 1 && count >= 0, "parallel_for over {} in grains of {}", count, grain);
  if (count == 0) return;
  const std::int64_t grains = (count + grain - 1) / grain;
  const auto members = static_cast<int>(std::min<std::int64_t>(thread_count, grains));
  if (members <= 1) {
    function(body, 0, count);
    return;
  }
  FirstException first_exception;
  std::atomic<std::int64_t> next_grain{0};
  run_team(members, [&](int member) {
    try {
      if (schedule == Schedule::kEven) {
        const std::int64_t begin = grains * member / members * grain;
        const std::int64_t end = std::min(count, grains * (member + 1) / members * grain);
        function(body, begin, end);
        return;
      }
      for (std::int64_t i = next_grain.fetch_add(1); i < grains; i = next_grain.fetch_add(1)) {
        function(body, i * grain, std::min(count, (i + 1) * grain));
      }
    } catch (...) {
      first_exception.capture();
    }
  });
  first_exception.rethrow();
}

}  // namespace internal

void use_threads_of([[maybe_unused]] const DeviceTraits& traits) {
#if defined(_OPENMP)
#if defined(__SANITIZE_THREAD__)
  const int threads = 1;
#else
  const int threads = traits.thread_count;
#endif
  if (omp_get_max_threads() != threads) omp_set_num_threads(threads);
#endif
}

}  // namespace octavo::device
