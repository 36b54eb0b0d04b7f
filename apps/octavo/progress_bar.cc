#include "progress_bar.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace octavo::app {

ProgressBar::ProgressBar() : terminal_(isatty(STDERR_FILENO) != 0), started_(std::chrono::steady_clock::now()) {}

ProgressBar::~ProgressBar() {
  if (drawn_) std::fputc('\n', stderr);
}

void ProgressBar::show(const generation::Progress& progress) {
  if (!terminal_) return;
  constexpr int kWidth = 30;
  const double fraction = std::clamp(progress.fraction(), 0.0, 1.0);
  const int filled = static_cast<int>(fraction * kWidth);
  const double elapsed = seconds(std::chrono::steady_clock::now() - started_);
  std::string left;
  if (fraction > 0.02) left = fmt::format(", {:.1f} s left", elapsed / fraction * (1 - fraction));
  const std::string picture =
      progress.image_count > 1 ? fmt::format("picture {}/{}, ", progress.image_index + 1, progress.image_count) : "";
  const std::string line =
      fmt::format("\r{:>3.0f}% |{:#>{}}{:>{}}| {}{} {}/{}, {:.1f} s{}\x1b[K", fraction * 100, "", filled, "",
                  kWidth - filled, picture, progress.stage, progress.step, progress.steps, elapsed, left);
  std::fputs(line.c_str(), stderr);
  std::fflush(stderr);
  drawn_ = true;
}

}  // namespace octavo::app
