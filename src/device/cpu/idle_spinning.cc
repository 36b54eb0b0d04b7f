#include "device/cpu/idle_spinning.h"

#include <unistd.h>

#include <cstdlib>

namespace octavo::device {

void limit_idle_spinning([[maybe_unused]] char** argv) {
#if defined(_OPENMP) && defined(__linux__)
  if (std::getenv("GOMP_SPINCOUNT") != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  if (setenv("GOMP_SPINCOUNT", "2000", 0) != 0) return;
  execv("/proc/self/exe", argv);  // returns only when refused: then the program goes on as it is
#endif
}

}  // namespace octavo::device
