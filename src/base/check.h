// OCTAVO_CHECK: always on, for what only a programmer can get wrong. A failed check throws CheckFailure, which
// ends the job (never the server) and is reported with its source line.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>

namespace octavo {

class CheckFailure : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

[[noreturn]] void fail_check(const char* file, int line, const char* condition, const std::string& message);

}  // namespace octavo

/// OCTAVO_CHECK(condition, "format {}", args...): the message is formatted only on failure.
#define OCTAVO_CHECK(condition, ...)                                                    \
  do {                                                                                  \
    if (!(condition)) [[unlikely]]                                                      \
      ::octavo::fail_check(__FILE__, __LINE__, #condition, ::fmt::format(__VA_ARGS__)); \
  } while (false)
