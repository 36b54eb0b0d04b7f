// Exchange: one request and its answer to come. A handler keeps the shared pointer as long as it works and answers
// from any thread; the connection waits without holding a thread. Dropping the last pointer without an answer
// answers 500, so a forgotten path cannot leave a client hanging.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "http/message.h"

namespace octavo::http {

class Exchange {
 public:
  /// What the transport gives: `deliver` is called once with the final answer, from any thread; `post` runs work on
  /// an I/O thread.
  struct Transport {
    std::function<void(Response)> deliver;
    std::function<void(std::function<void()>)> post;
  };

  Exchange(Request request, Transport transport);
  ~Exchange();
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  const Request& request() const { return request_; }

  /// The answer. The first call counts, later ones are ignored. Safe from any thread.
  void respond(Response response);
  bool responded() const;

  /// Calls `callback` once if the client leaves before the answer: from an I/O thread, or at once when it has left.
  /// Callbacks are dropped unused when the answer comes first.
  void on_client_gone(std::function<void()> callback);
  bool client_gone() const;

  /// Runs `work` on an I/O thread: for work a handler must not do where it is called (an engine's callback).
  void run_on_io(std::function<void()> work) const { transport_.post(std::move(work)); }

  // ---- for middleware and the transport ----

  /// Adds a look at the final answer; the last added runs first. Only before the handler is called.
  void before_send(std::function<void(const Exchange&, Response&)> hook);
  void set_request_id(std::string id) { request_.id = std::move(id); }
  /// The transport saw the connection end.
  void notify_client_gone();

 private:
  void send(Response response);

  Request request_;
  const Transport transport_;
  std::vector<std::function<void(const Exchange&, Response&)>> hooks_;
  mutable std::mutex mutex_;
  bool responded_ = false;
  bool client_gone_ = false;
  std::vector<std::function<void()>> gone_callbacks_;
};

using Handler = std::function<void(std::shared_ptr<Exchange>)>;

}  // namespace octavo::http
