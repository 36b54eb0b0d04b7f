#include "base/guarded.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <string>
#include <thread>
#include <vector>

namespace octavo {
namespace {

TEST(Guarded, passes_its_arguments_to_the_value) {
  Guarded<std::string> text(3, 'x');
  EXPECT_EQ(*text.lock(), "xxx");
  EXPECT_EQ(text.lock()->size(), 3u);
}

TEST(Guarded, only_one_thread_is_inside) {
  struct Counts {
    int inside = 0, most_inside = 0, total = 0;
  };
  Guarded<Counts> counts;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&counts] {
      for (int i = 0; i < 1000; ++i) {
        auto access = counts.lock();
        access->most_inside = std::max(access->most_inside, ++access->inside);
        if (i % 100 == 0) std::this_thread::yield();
        ++access->total;
        --access->inside;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(counts.lock()->most_inside, 1);
  EXPECT_EQ(counts.lock()->total, 4000);
}

TEST(Guarded, its_lock_serves_a_condition_variable) {
  Guarded<int> value(0);
  std::condition_variable changed;
  std::thread setter([&] {
    *value.lock() = 7;
    changed.notify_one();
  });
  int seen = 0;
  {
    auto access = value.lock();
    changed.wait(access.lock(), [&access] { return *access != 0; });
    seen = *access;
  }
  setter.join();
  EXPECT_EQ(seen, 7);
}

}  // namespace
}  // namespace octavo
