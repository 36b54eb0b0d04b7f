// A1111's job_timestamp.
#pragma once

#include <string>

#include "base/clock.h"

namespace octavo::api::a1111 {

/// "YYYYMMDDHHMMSS" in local time of a moment of the monotonic clock.
std::string job_timestamp(Clock::TimePoint moment, const Clock& clock);

}  // namespace octavo::api::a1111
