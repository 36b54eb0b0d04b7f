#include "work_progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "base/clock.h"

namespace octavo::app {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kBytesPerGigabyte = 1e9;
constexpr std::chrono::milliseconds kRedraw{100};

}  // namespace

WorkProgress::WorkProgress(std::string what)
    : what_(std::move(what)), terminal_(isatty(STDERR_FILENO) != 0), started_(Clock::now()) {}

WorkProgress::~WorkProgress() {
  if (drawn_) std::fputc('\n', stderr);
}

void WorkProgress::show(std::size_t done, std::size_t total) {
  const auto now = Clock::now();
  if (!terminal_ || total == 0 || (now - shown_ < kRedraw && done < total)) return;
  shown_ = now;
  const double elapsed = seconds(now - started_), bytes = static_cast<double>(done);
  std::string left;
  if (done > 0) left = fmt::format(", {:.0f} s left", elapsed / bytes * static_cast<double>(total - done));
  const std::string line =
      fmt::format("\r{} {:>3.0f}% {:.2f} of {:.2f} GB, {:.0f} MB/s{}\x1b[K", what_,
                  100 * bytes / static_cast<double>(total), bytes / kBytesPerGigabyte,
                  static_cast<double>(total) / kBytesPerGigabyte, bytes / 1e6 / std::max(elapsed, 1e-3), left);
  std::fputs(line.c_str(), stderr);
  std::fflush(stderr);
  drawn_ = true;
}

}  // namespace octavo::app
