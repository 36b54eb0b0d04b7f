// Endpoints for operators: health, metrics, and a word of welcome.
#pragma once

#include <memory>

#include "api/service.h"
#include "http/exchange.h"

namespace octavo::api::operations {

/// GET / : how to call this server, as plain text.
void index(const Service& service, const std::shared_ptr<http::Exchange>& exchange);
/// GET /v2/health/live: 200 while the process answers at all, draining included.
void live(const Service& service, const std::shared_ptr<http::Exchange>& exchange);
/// GET /v2/health/ready: 200 when a picture would be drawn now, else 503 with the reason's word.
void ready(const Service& service, const std::shared_ptr<http::Exchange>& exchange);
/// GET /internal/ping: A1111's name for live.
void ping(const Service& service, const std::shared_ptr<http::Exchange>& exchange);
/// GET /metrics: Prometheus text.
void metrics(const Service& service, const std::shared_ptr<http::Exchange>& exchange);

}  // namespace octavo::api::operations
