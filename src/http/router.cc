#include "http/router.h"

#include "base/check.h"

namespace octavo::http {

Router::Router(std::vector<Route> routes) : routes_(std::move(routes)) {
  for (std::size_t i = 0; i < routes_.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      OCTAVO_CHECK(routes_[i].method != routes_[j].method || routes_[i].path != routes_[j].path, "two rows for {} {}",
                   routes_[i].method, routes_[i].path);
    }
  }
}

Router::Match Router::match(std::string_view method, std::string_view path, std::string_view query) const {
  Match match;
  const auto allowed_methods = [&](std::string_view wanted) {
    std::string allow;
    for (const Route& route : routes_) {
      if (route.path == wanted) allow += (allow.empty() ? "" : ", ") + route.method;
    }
    return allow;
  };
  const std::string allow = allowed_methods(path);
  if (!allow.empty()) {
    match.label = std::string(path);
    for (const Route& route : routes_) {
      if (route.path == path && route.method == method) match.route = &route;
    }
    if (match.route == nullptr) {
      match.refusal = error_response(405, "Method Not Allowed");
      match.refusal.headers.push_back({"Allow", allow});
    }
    return match;
  }
  if (path.size() > 1 && path.ends_with('/')) {
    const std::string_view shorter = path.substr(0, path.size() - 1);
    if (!allowed_methods(shorter).empty()) {
      match.refusal.status = 307;
      match.refusal.headers.push_back(
          {"Location", std::string(shorter) + (query.empty() ? "" : "?" + std::string(query))});
      return match;
    }
  }
  match.refusal = error_response(404, "Not Found");
  return match;
}

}  // namespace octavo::http
