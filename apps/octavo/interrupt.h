// Ctrl-C and SIGTERM as a question that a long command asks between portions of its work, so that it can clean up.
#pragma once

#include <signal.h>

#include <array>

namespace octavo::app {

/// Owns SIGINT and SIGTERM while alive; one at a time. A second signal ends the process at once. SIGXFSZ is ignored
/// meanwhile: a file over the process's limit is then a failed write like a full disk, and is cleaned up.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;
  bool requested() const;

 private:
  std::array<struct sigaction, 3> previous_{};  // of SIGTERM, SIGINT, SIGXFSZ
};

}  // namespace octavo::app
