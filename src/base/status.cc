#include "base/status.h"

namespace octavo {

std::string_view error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kOk:
      return "ok";
    case ErrorCode::kInvalidArgument:
      return "invalid_argument";
    case ErrorCode::kNotFound:
      return "not_found";
    case ErrorCode::kFailedPrecondition:
      return "failed_precondition";
    case ErrorCode::kResourceExhausted:
      return "resource_exhausted";
    case ErrorCode::kUnavailable:
      return "unavailable";
    case ErrorCode::kDeadlineExceeded:
      return "deadline_exceeded";
    case ErrorCode::kCancelled:
      return "cancelled";
    case ErrorCode::kDataCorruption:
      return "data_corruption";
    case ErrorCode::kInternal:
      return "internal";
  }
  return "internal";
}

std::string Status::to_string() const {
  if (ok()) return "ok";
  return subject_.empty() ? message_ : subject_ + ": " + message_;
}

Status invalid_argument(std::string subject, std::string message) {
  return {ErrorCode::kInvalidArgument, std::move(message), std::move(subject)};
}
Status not_found(std::string subject, std::string message) {
  return {ErrorCode::kNotFound, std::move(message), std::move(subject)};
}
Status failed_precondition(std::string subject, std::string message) {
  return {ErrorCode::kFailedPrecondition, std::move(message), std::move(subject)};
}
Status resource_exhausted(std::string subject, std::string message) {
  return {ErrorCode::kResourceExhausted, std::move(message), std::move(subject)};
}
Status unavailable(std::string subject, std::string message) {
  return {ErrorCode::kUnavailable, std::move(message), std::move(subject)};
}
Status deadline_exceeded(std::string subject, std::string message) {
  return {ErrorCode::kDeadlineExceeded, std::move(message), std::move(subject)};
}
Status cancelled(std::string message) { return {ErrorCode::kCancelled, std::move(message)}; }
Status data_corruption(std::string subject, std::string message) {
  return {ErrorCode::kDataCorruption, std::move(message), std::move(subject)};
}
Status internal_error(std::string subject, std::string message) {
  return {ErrorCode::kInternal, std::move(message), std::move(subject)};
}

void fail_check(const char* file, int line, const char* condition, const std::string& message) {
  throw CheckFailure(fmt::format("{}:{}: check failed: {}: {}", file, line, condition, message));
}

}  // namespace octavo
