// Status and Result<T>: what a call that can fail for reasons outside the program returns.
//
// Who can cause the failure? A user, a file, the network, a full disk or device: Status/Result. A programmer:
// OCTAVO_CHECK (base/check.h). A device that is broken: DeviceError (device/device.h).
// A message says what is wrong and what to do; `subject` names the thing it is about (a JSON field, a file, a
// tensor), so that a dialect can point at it. Values are immutable after construction and safe to read from
// any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "base/check.h"

namespace octavo {

enum class ErrorCode {
  kOk,
  kInvalidArgument,     // the caller's input is wrong; the same call fails again
  kNotFound,            // a file, tensor, model, job or route does not exist
  kFailedPrecondition,  // right input, wrong state (model not loaded, checkpoint quantised already)
  kResourceExhausted,   // queue full, out of memory, disk full; may work later
  kUnavailable,         // shutting down, not ready
  kDeadlineExceeded,
  kCancelled,
  kDataCorruption,  // a file's bytes contradict its format
  kInternal,        // our bug, or a number that must not be (NaN in the latents)
};

/// Lower-case snake name ("invalid_argument"), stable: it appears in logs and metrics.
std::string_view error_code_name(ErrorCode code);

class [[nodiscard]] Status {
 public:
  Status() = default;  // ok
  Status(ErrorCode code, std::string message, std::string subject = {})
      : code_(code), message_(std::move(message)), subject_(std::move(subject)) {}

  static Status ok_status() { return {}; }
  bool ok() const { return code_ == ErrorCode::kOk; }
  ErrorCode code() const { return code_; }
  const std::string& message() const { return message_; }
  const std::string& subject() const { return subject_; }
  /// "subject: message", or the message alone when there is no subject.
  std::string to_string() const;

 private:
  ErrorCode code_ = ErrorCode::kOk;
  std::string message_;
  std::string subject_;
};

/// `subject` names the field, file or tensor the message is about.
Status invalid_argument(std::string subject, std::string message);
Status not_found(std::string subject, std::string message);
Status failed_precondition(std::string subject, std::string message);
Status resource_exhausted(std::string subject, std::string message);
Status unavailable(std::string subject, std::string message);
Status deadline_exceeded(std::string subject, std::string message);
Status cancelled(std::string message);
Status data_corruption(std::string subject, std::string message);
Status internal_error(std::string subject, std::string message);

/// A value or the Status that says why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}        // NOLINT: implicit by design
  Result(Status status) : state_(std::in_place_index<1>, std::move(status)) {  // NOLINT: implicit by design
    OCTAVO_CHECK(!std::get<1>(state_).ok(), "a Result without a value needs an error");
  }

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  /// Requires ok().
  T& value() & {
    require();
    return std::get<0>(state_);
  }
  const T& value() const& {
    require();
    return std::get<0>(state_);
  }
  T&& value() && {
    require();
    return std::get<0>(std::move(state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  /// The error, or an ok Status.
  Status status() const { return ok() ? Status() : std::get<1>(state_); }

 private:
  void require() const { OCTAVO_CHECK(ok(), "Result has no value: {}", std::get<1>(state_).to_string()); }
  std::variant<T, Status> state_;
};

}  // namespace octavo

#define OCTAVO_STATUS_CONCAT_INNER(a, b) a##b
#define OCTAVO_STATUS_CONCAT(a, b) OCTAVO_STATUS_CONCAT_INNER(a, b)

/// Returns from the enclosing function when `expression` (a Status) is an error.
#define OCTAVO_RETURN_IF_ERROR(expression)           \
  do {                                               \
    ::octavo::Status octavo_status_ = (expression);  \
    if (!octavo_status_.ok()) return octavo_status_; \
  } while (false)

/// OCTAVO_ASSIGN_OR_RETURN(auto x, make_x()): binds the value or returns the error.
#define OCTAVO_ASSIGN_OR_RETURN(declaration, expression)              \
  auto OCTAVO_STATUS_CONCAT(octavo_result_, __LINE__) = (expression); \
  if (!OCTAVO_STATUS_CONCAT(octavo_result_, __LINE__).ok())           \
    return OCTAVO_STATUS_CONCAT(octavo_result_, __LINE__).status();   \
  declaration = std::move(OCTAVO_STATUS_CONCAT(octavo_result_, __LINE__)).value()
