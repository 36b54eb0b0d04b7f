#include "interrupt.h"

#include <unistd.h>

#include <atomic>

namespace octavo::app {
namespace {

constexpr std::array<int, 3> kSignals = {SIGTERM, SIGINT, SIGXFSZ};
std::atomic<int> g_count{0};

extern "C" void count_signal(int number) {
  if (g_count.fetch_add(1) > 0) _exit(128 + number);
}

}  // namespace

Interrupt::Interrupt() {
  g_count = 0;
  struct sigaction action = {};
  sigemptyset(&action.sa_mask);
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    action.sa_handler = kSignals[i] == SIGXFSZ ? SIG_IGN : count_signal;
    sigaction(kSignals[i], &action, &previous_[i]);
  }
}

Interrupt::~Interrupt() {
  for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &previous_[i], nullptr);
}

bool Interrupt::requested() const { return g_count > 0; }

}  // namespace octavo::app
