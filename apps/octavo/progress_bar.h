// A progress bar on standard error: redrawn in place on a terminal, silent elsewhere.
#pragma once

#include <chrono>

#include "generation/generation.h"

namespace octavo::app {

class ProgressBar {
 public:
  ProgressBar();
  ~ProgressBar();  // leaves the cursor on a fresh line
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  void show(const generation::Progress& progress);

 private:
  bool terminal_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point started_;
};

}  // namespace octavo::app
