#include "base/ids.h"

#include <fmt/format.h>

#include <cstdint>
#include <random>

namespace octavo {

std::string random_id() {
  static thread_local std::mt19937_64 generator{[] {
    std::random_device device;
    return (static_cast<std::uint64_t>(device()) << 32) | device();
  }()};
  return fmt::format("{:016x}{:016x}", generator(), generator());
}

}  // namespace octavo
