#include "api/a1111/timestamp.h"

#include <array>
#include <ctime>

namespace octavo::api::a1111 {

std::string job_timestamp(Clock::TimePoint moment, const Clock& clock) {
  const auto wall =
      clock.wall_now() - std::chrono::duration_cast<std::chrono::system_clock::duration>(clock.now() - moment);
  const std::time_t time = std::chrono::system_clock::to_time_t(wall);
  std::tm local{};
  localtime_r(&time, &local);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y%m%d%H%M%S", &local);
  return text.data();
}

}  // namespace octavo::api::a1111
