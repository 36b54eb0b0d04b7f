// Random identifiers for jobs and requests.
#pragma once

#include <string>

namespace octavo {

/// 128 random bits as 32 lower-case hex digits; safe from any thread.
std::string random_id();

}  // namespace octavo
