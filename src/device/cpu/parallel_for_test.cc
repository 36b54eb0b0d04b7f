#include "device/cpu/parallel_for.h"

#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <stdexcept>
#include <vector>

namespace octavo::device {
namespace {

DeviceTraits traits_with(int threads) {
  DeviceTraits traits;
  traits.thread_count = threads;
  return traits;
}

TEST(ParallelFor, covers_every_index_once_for_any_threads_and_grain) {
  for (const int threads : {1, 2, 3, 8}) {
    for (const std::int64_t grain : {1, 3, 64}) {
      for (const std::int64_t count : {0, 1, 2, 3, 63, 64, 65, 1000}) {
        std::vector<int> even(count);
        std::vector<int> dynamic(count);
        const auto visit = [&](std::vector<int>& seen) {
          return [&seen, grain](std::int64_t begin, std::int64_t end) {
            EXPECT_EQ(begin % grain, 0);
            for (std::int64_t i = begin; i < end; ++i) ++seen[i];
          };
        };
        parallel_for(traits_with(threads), count, grain, visit(even));
        parallel_for_dynamic(traits_with(threads), count, grain, visit(dynamic));
        EXPECT_EQ(even, std::vector<int>(count, 1)) << threads << " threads, grain " << grain;
        EXPECT_EQ(dynamic, std::vector<int>(count, 1)) << threads << " threads, grain " << grain;
      }
    }
  }
}

TEST(ParallelFor, rethrows_an_exception_of_a_body_after_all_are_done) {
  std::atomic<int> calls{0};
  const auto body = [&](std::int64_t begin, std::int64_t) {
    ++calls;
    if (begin == 0) throw std::runtime_error("first");
  };
  EXPECT_THROW(parallel_for(traits_with(4), 4, 1, body), std::runtime_error);
  EXPECT_EQ(calls, 4);
}

TEST(ParallelFor, small_work_stays_on_the_calling_thread) {
  int calls = 0;  // not atomic: one call only
  parallel_for(traits_with(8), 10, 10, [&](std::int64_t begin, std::int64_t end) {
    ++calls;
    EXPECT_EQ(begin, 0);
    EXPECT_EQ(end, 10);
  });
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace octavo::device
