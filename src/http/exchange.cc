#include "http/exchange.h"

#include <exception>
#include <utility>

#include "base/log.h"

namespace octavo::http {

Exchange::Exchange(Request request, Transport transport)
    : request_(std::move(request)), transport_(std::move(transport)) {}

Exchange::~Exchange() {
  if (responded_) return;
  try {
    spdlog::error("{} {}: dropped without an answer", request_.method, request_.path);
    send(error_response(500, "the request was dropped"));
  } catch (const std::exception& error) {
    spdlog::error("answering a dropped request: {}", error.what());
  }
}

void Exchange::respond(Response response) {
  std::vector<std::function<void()>> dropped;  // destroyed after the lock: they may hold this exchange
  {
    const std::lock_guard lock(mutex_);
    if (responded_) return;
    responded_ = true;
    dropped.swap(gone_callbacks_);
  }
  send(std::move(response));
}

bool Exchange::responded() const {
  const std::lock_guard lock(mutex_);
  return responded_;
}

void Exchange::on_client_gone(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (responded_) return;
    if (!client_gone_) {
      gone_callbacks_.push_back(std::move(callback));
      return;
    }
  }
  callback();
}

bool Exchange::client_gone() const {
  const std::lock_guard lock(mutex_);
  return client_gone_;
}

void Exchange::before_send(std::function<void(const Exchange&, Response&)> hook) { hooks_.push_back(std::move(hook)); }

void Exchange::notify_client_gone() {
  std::vector<std::function<void()>> callbacks;
  {
    const std::lock_guard lock(mutex_);
    if (client_gone_) return;
    client_gone_ = true;
    callbacks.swap(gone_callbacks_);
  }
  for (const auto& callback : callbacks) callback();
}

void Exchange::send(Response response) {
  for (auto hook = hooks_.rbegin(); hook != hooks_.rend(); ++hook) (*hook)(*this, response);
  transport_.deliver(std::move(response));
}

}  // namespace octavo::http
