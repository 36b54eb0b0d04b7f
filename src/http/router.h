// Router: a table of exact paths. Answers what A1111's framework answers: 404, 405 with Allow, 307 for a trailing
// slash. Immutable after construction, safe from any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "http/exchange.h"

namespace octavo::http {

struct Route {
  std::string method;  // "GET"; HEAD needs a row of its own
  std::string path;
  Handler handler;
};

class Router {
 public:
  /// Two rows with the same method and path are a CheckFailure.
  explicit Router(std::vector<Route> routes);

  struct Match {
    const Route* route = nullptr;  // null: answer with `refusal`
    std::string label = "other";   // the path when some row has it
    Response refusal;
  };
  Match match(std::string_view method, std::string_view path, std::string_view query) const;

 private:
  std::vector<Route> routes_;
};

}  // namespace octavo::http
