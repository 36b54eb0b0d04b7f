// Request and Response: HTTP messages as plain values. No header of this folder shows the transport library.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"

namespace octavo::http {

struct Header {
  std::string name;
  std::string value;
};

struct Request {
  std::string id;      // 1 to 64 of [A-Za-z0-9._-]: the client's X-Request-Id, or drawn
  std::string method;  // "GET"; "" when the request could not be parsed
  std::string target;  // as sent
  std::string path;    // target up to '?', not decoded
  std::string query;   // after '?', not decoded
  std::vector<Header> headers;
  std::string body;
  std::string route;               // the matched path, or "other": a label of bounded variety
  Clock::TimePoint received_at{};  // its last byte arrived

  /// The first header of that name (any case), or "".
  std::string_view header(std::string_view name) const;
};

struct Response {
  int status = 200;
  std::string content_type = "application/json";
  std::vector<Header> headers;
  std::string body;
  std::string error_detail;  // set instead of a body: the dialect's error shape is made from it (middleware.cc)
  bool close = false;        // end the connection after this answer
};

/// An answer whose body the error_shape middleware writes.
Response error_response(int status, std::string detail);

/// "Not Found" for 404; "" for a status this server never sends.
std::string_view reason_phrase(int status);

/// The value of `key` in a query string, percent-decoded with '+' as space; the first one counts. False when absent.
bool query_value(std::string_view query, std::string_view key, std::string* value);

}  // namespace octavo::http
