// The progress of a command that moves gigabytes: one line on a terminal, redrawn in place, with the time left; silent
// elsewhere.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>

namespace octavo::app {

class WorkProgress {
 public:
  /// `what` stands in front: "writing".
  explicit WorkProgress(std::string what);
  ~WorkProgress();  // leaves the cursor on a fresh line
  WorkProgress(const WorkProgress&) = delete;
  WorkProgress& operator=(const WorkProgress&) = delete;
  /// Bytes. One thread at a time.
  void show(std::size_t done, std::size_t total);
  /// The same for things that are counted.
  void show_count(std::size_t done, std::size_t total);

 private:
  /// Whether it is time to draw; notes that it is drawn.
  bool due(std::size_t done, std::size_t total);
  void draw(const std::string& amounts, std::size_t done, std::size_t total);
  const std::string what_;
  const bool terminal_;
  bool drawn_ = false;
  const std::chrono::steady_clock::time_point started_;
  std::chrono::steady_clock::time_point shown_{};
};

}  // namespace octavo::app
