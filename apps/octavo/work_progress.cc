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

bool WorkProgress::due(std::size_t done, std::size_t total) {
  const auto now = Clock::now();
  if (!terminal_ || total == 0 || (now - shown_ < kRedraw && done < total)) return false;
  shown_ = now;
  return true;
}

void WorkProgress::draw(const std::string& amounts, std::size_t done, std::size_t total) {
  const double elapsed = seconds(shown_ - started_);
  std::string left;
  if (done > 0) {
    left = fmt::format(", {:.0f} s left", elapsed / static_cast<double>(done) * static_cast<double>(total - done));
  }
  const std::string line = fmt::format("\r{} {:>3.0f}% {}{}\x1b[K", what_,
                                       100 * static_cast<double>(done) / static_cast<double>(total), amounts, left);
  std::fputs(line.c_str(), stderr);
  std::fflush(stderr);
  drawn_ = true;
}

void WorkProgress::show(std::size_t done, std::size_t total) {
  if (!due(done, total)) return;
  const double bytes = static_cast<double>(done);
  draw(fmt::format("{:.2f} of {:.2f} GB, {:.0f} MB/s", bytes / kBytesPerGigabyte,
                   static_cast<double>(total) / kBytesPerGigabyte,
                   bytes / 1e6 / std::max(seconds(shown_ - started_), 1e-3)),
       done, total);
}

void WorkProgress::show_count(std::size_t done, std::size_t total) {
  if (due(done, total)) draw(fmt::format("{} of {}", done, total), done, total);
}

}  // namespace octavo::app
