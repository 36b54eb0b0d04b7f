// Clock: the only source of time in the service and the pipeline, so that tests own time (testing/manual_clock.h).
#pragma once

#include <chrono>

namespace octavo {

class Clock {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  using Duration = std::chrono::steady_clock::duration;
  virtual ~Clock() = default;
  /// Monotonic; safe from any thread.
  virtual TimePoint now() const = 0;
  /// Wall time, for timestamps shown to people only.
  virtual std::chrono::system_clock::time_point wall_now() const = 0;
};

/// The process's real clock; lives for ever.
const Clock& system_clock();

/// Seconds as a double, for logs and tables.
inline double seconds(Clock::Duration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace octavo
