// The one table of endpoints.
#pragma once

#include <vector>

#include "api/service.h"
#include "http/router.h"

namespace octavo::api {

/// `service` must outlive the routes.
std::vector<http::Route> routes(const Service& service);

}  // namespace octavo::api
