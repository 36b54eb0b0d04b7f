// AllocationCounter: who allocates while a piece of code runs, for tests of "no allocation after warm-up".
//
// An executable that uses it gets its own malloc family, which forwards to the C library's and, while a counter
// counts, attributes each allocation to the innermost caller that is not the C or C++ run-time library: the executable
// itself (our code, which is linked statically) or a shared library by name (libdnnl, libgomp).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace octavo::testing {

/// Counts from construction to stop(), on every thread; one at a time.
class AllocationCounter {
 public:
  struct Owner {
    std::string module;  // file name: "libdnnl.so.2", or the executable's
    bool ours = false;   // the executable
    std::int64_t count = 0;
  };

  /// False under sanitizers, which bring their own malloc: tests skip themselves.
  static bool supported();

  AllocationCounter();
  ~AllocationCounter();
  AllocationCounter(const AllocationCounter&) = delete;
  AllocationCounter& operator=(const AllocationCounter&) = delete;

  /// Ends counting; who allocated, the executable first. Later calls return the same.
  std::vector<Owner> stop();
  /// Allocations of the executable itself; ends counting.
  std::int64_t stop_and_count_ours();

 private:
  bool stopped_ = false;
  std::vector<Owner> owners_;
};

}  // namespace octavo::testing
