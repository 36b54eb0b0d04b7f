// parallel_for: the CPU threads of one op.
//
// The threads are libgomp's, the pool that oneDNN works on, so that an op of ours and a product of oneDNN never
// compete for a core. Nothing is allocated per call. Which thread computes which range never changes a result: a
// kernel must compute each index alone.
#pragma once

#include <cstdint>

#include "device/device.h"

namespace octavo::device {

/// Calls body(begin, end) for disjoint ranges that cover [0, count), on at most traits.thread_count threads, and
/// returns when all are done. Ranges begin at multiples of `grain` (the least work worth a thread); a count of at most
/// `grain` runs on the calling thread. Ranges are handed out evenly beforehand. An exception of a body is rethrown
/// here. Not to be nested.
template <class Body>
void parallel_for(const DeviceTraits& traits, std::int64_t count, std::int64_t grain, const Body& body);

/// The same, with ranges of `grain` handed out one by one to whichever thread is free: for work of uneven size.
template <class Body>
void parallel_for_dynamic(const DeviceTraits& traits, std::int64_t count, std::int64_t grain, const Body& body);

/// Makes the calling thread's next oneDNN primitives use traits.thread_count threads; call before creating or
/// executing one. Costs a comparison when nothing changes.
void use_threads_of(const DeviceTraits& traits);

namespace internal {
using RangeFunction = void (*)(const void* body, std::int64_t begin, std::int64_t end);
enum class Schedule { kEven, kDynamic };
void run_parallel(int thread_count, std::int64_t count, std::int64_t grain, Schedule schedule, RangeFunction function,
                  const void* body);

template <class Body>
void call_body(const void* body, std::int64_t begin, std::int64_t end) {
  (*static_cast<const Body*>(body))(begin, end);
}
}  // namespace internal

template <class Body>
void parallel_for(const DeviceTraits& traits, std::int64_t count, std::int64_t grain, const Body& body) {
  internal::run_parallel(traits.thread_count, count, grain, internal::Schedule::kEven, internal::call_body<Body>,
                         &body);
}

template <class Body>
void parallel_for_dynamic(const DeviceTraits& traits, std::int64_t count, std::int64_t grain, const Body& body) {
  internal::run_parallel(traits.thread_count, count, grain, internal::Schedule::kDynamic, internal::call_body<Body>,
                         &body);
}

}  // namespace octavo::device
