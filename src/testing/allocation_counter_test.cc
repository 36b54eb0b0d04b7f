#include "testing/allocation_counter.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace octavo::testing {
namespace {

/// Keeps the compiler from removing an allocation nobody reads.
void keep(const void* pointer) { asm volatile("" : : "g"(pointer) : "memory"); }

TEST(AllocationCounter, sees_every_way_of_allocating_here) {
  if (!AllocationCounter::supported()) GTEST_SKIP() << "sanitizers bring their own malloc";
  AllocationCounter counter;
  const auto one = std::make_unique<int>(1);
  keep(one.get());
  void* two = std::malloc(10);
  keep(two);
  std::vector<int> three(100);
  keep(three.data());
  const std::string four(100, 'x');  // allocates inside libstdc++ on our behalf
  keep(four.data());
  void* five = std::aligned_alloc(64, 64);
  keep(five);
  EXPECT_EQ(counter.stop_and_count_ours(), 5);
  std::free(two);
  std::free(five);
}

TEST(AllocationCounter, sees_other_threads_and_nothing_when_nothing_happens) {
  if (!AllocationCounter::supported()) GTEST_SKIP() << "sanitizers bring their own malloc";
  std::vector<int> memory(10);
  AllocationCounter idle;
  for (int& value : memory) value = 1;
  keep(memory.data());
  EXPECT_EQ(idle.stop_and_count_ours(), 0);

  bool allocate = false;
  std::thread thread;
  {
    AllocationCounter counter;
    allocate = true;
    thread = std::thread([&allocate] {
      if (allocate) keep(std::make_unique<int>(2).get());
    });
    thread.join();
    EXPECT_GE(counter.stop_and_count_ours(), 1);
  }
}

}  // namespace
}  // namespace octavo::testing
