// The only file that includes Beast. Everything runs on the connection's strand except Exchange's functions.
#include "http/connection.h"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <optional>

#include "base/log.h"

namespace octavo::http {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace bhttp = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

constexpr std::size_t kReadBytes = 8 << 10;
/// Bytes of further requests kept while one is worked on; a client that sends more is not read, and so not watched.
constexpr std::size_t kMaxPipelinedBytes = 64 << 10;
constexpr std::size_t kMaxBufferBytes = 256 << 10;
constexpr std::size_t kMaxLingerBytes = 256 << 20;

auto with(error_code& error) { return asio::redirect_error(asio::use_awaitable, error); }

std::string to_string(beast::string_view text) { return {text.data(), text.size()}; }

/// Reads and throws away until the client closes: closing with unread bytes resets the connection, and the answer
/// that says why would be lost with it.
asio::awaitable<void> linger(beast::tcp_stream& stream, Clock::Duration timeout) {
  error_code error;
  stream.socket().shutdown(tcp::socket::shutdown_send, error);
  stream.expires_after(timeout);
  std::vector<char> discarded(64 << 10);
  std::size_t total = 0;
  while (!error && total < kMaxLingerBytes) {
    total += co_await stream.async_read_some(asio::buffer(discarded), with(error));
  }
}

bhttp::response<bhttp::string_body> to_message(Response& response, unsigned version, bool keep_alive) {
  bhttp::response<bhttp::string_body> message;
  message.version(version);
  message.result(static_cast<unsigned>(response.status));
  message.reason({reason_phrase(response.status).data(), reason_phrase(response.status).size()});
  for (const Header& header : response.headers) message.insert(header.name, header.value);
  if (!response.body.empty()) message.set(bhttp::field::content_type, response.content_type);
  message.keep_alive(keep_alive);
  message.body() = std::move(response.body);
  message.content_length(message.body().size());
  return message;
}

/// Errors that are the request's fault and deserve an answer; after the others nobody listens any more. (After a
/// timeout Beast has closed the socket: the answer is for the log and the metrics.)
bool is_refusable(error_code error) {
  if (error == beast::error::timeout) return true;
  if (error == bhttp::error::end_of_stream || error == bhttp::error::partial_message) return false;
  return error.category() == bhttp::make_error_code(bhttp::error::bad_method).category();
}

class BeastConnection final : public Connection, public std::enable_shared_from_this<BeastConnection> {
 public:
  BeastConnection(tcp::socket socket, asio::any_io_executor io, const Router& router, ServerContext& context)
      : stream_(std::move(socket)),
        io_(std::move(io)),
        wake_(stream_.get_executor()),
        router_(router),
        context_(context) {
    buffer_.max_size(kMaxBufferBytes);
    wake_.expires_at(asio::steady_timer::time_point::max());
  }

  void start(std::function<void()> ended) override {
    asio::co_spawn(stream_.get_executor(), serve(),
                   [self = shared_from_this(), ended = std::move(ended)](std::exception_ptr failure) {
                     self->close();
                     if (failure) {
                       try {
                         std::rethrow_exception(failure);
                       } catch (const std::exception& error) {
                         spdlog::error("connection: {}", error.what());
                       }
                     }
                     ended();
                   });
  }

  void drain() override {
    asio::dispatch(stream_.get_executor(), [self = shared_from_this()] {
      if (self->idle_) self->close();
    });
  }

 private:
  using Parser = bhttp::request_parser<bhttp::string_body>;

  void close() {
    error_code ignored;
    stream_.socket().close(ignored);
  }

  asio::awaitable<void> serve() {
    error_code error;
    stream_.socket().set_option(tcp::no_delay(true), error);
    bool keep_alive = true;
    for (bool first = true; keep_alive; first = false) {
      if (!co_await wait_for_first_byte(first)) co_return;
      keep_alive = co_await serve_one();
    }
    co_await linger(stream_, context_.options.linger_timeout);
  }

  asio::awaitable<bool> wait_for_first_byte(bool first) {
    if (buffer_.size() > 0) co_return true;
    if (context_.draining && !first) co_return false;
    error_code error;
    idle_ = true;
    stream_.expires_after(first ? context_.options.header_timeout : context_.options.idle_timeout);
    const std::size_t count = co_await stream_.async_read_some(buffer_.prepare(kReadBytes), with(error));
    idle_ = false;
    buffer_.commit(count);
    co_return !error;
  }

  /// Reads a request, has it answered, sends the answer. False = the connection ends.
  asio::awaitable<bool> serve_one() {
    Parser parser;
    parser.header_limit(static_cast<std::uint32_t>(context_.options.max_header_bytes));
    parser.body_limit(context_.options.max_body_bytes);
    const error_code error = co_await read(parser);
    if (error && !is_refusable(error)) co_return false;

    Request request = take_request(parser);
    Router::Match match = router_.match(request.method, request.path, request.query);
    if (error) {
      match.route = nullptr;
      match.refusal = refusal_of(error);
    } else if (request.target.size() > context_.options.max_target_bytes) {
      match.route = nullptr;
      match.refusal = error_response(
          414, fmt::format("the request target is longer than {} bytes", context_.options.max_target_bytes));
      match.refusal.close = true;
    }
    request.route = match.label;
    const bool head = request.method == "HEAD";
    dispatch(std::move(request), match);

    if (!answer_) co_await wait_for_answer();
    Response answer = std::move(*answer_);
    answer_.reset();
    if (gone_) co_return false;
    const bool keep_alive = !error && parser.get().keep_alive() && !answer.close && !context_.draining;
    co_return co_await write(answer, parser.get().version(), keep_alive, head) && keep_alive;
  }

  asio::awaitable<error_code> read(Parser& parser) {
    error_code error;
    stream_.expires_after(context_.options.header_timeout);
    co_await bhttp::async_read_header(stream_, buffer_, parser, with(error));
    if (error) co_return error;
    stream_.expires_after(context_.options.body_timeout);
    if (!parser.is_done() && beast::iequals(parser.get()[bhttp::field::expect], "100-continue")) {
      static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
      co_await asio::async_write(stream_, asio::buffer(kContinue), with(error));
      if (error) co_return error;
    }
    co_await bhttp::async_read(stream_, buffer_, parser, with(error));
    co_return error;
  }

  Request take_request(Parser& parser) const {
    Request request;
    const auto& message = parser.get();
    request.received_at = context_.clock.now();
    request.method = to_string(message.method_string());
    request.target = to_string(message.target());
    const std::size_t question = request.target.find('?');
    request.path = request.target.substr(0, question);
    if (question != std::string::npos) request.query = request.target.substr(question + 1);
    for (const auto& field : message)
      request.headers.push_back({to_string(field.name_string()), to_string(field.value())});
    request.body = std::move(parser.get().body());
    return request;
  }

  Response refusal_of(error_code error) const {
    Response response;
    if (error == beast::error::timeout) {
      response = error_response(408, "the request did not arrive in time");
    } else if (error == bhttp::error::body_limit) {
      response = error_response(413, fmt::format("the body is larger than {} bytes", context_.options.max_body_bytes));
    } else if (error == bhttp::error::header_limit || error == bhttp::error::buffer_overflow) {
      response =
          error_response(431, fmt::format("the headers are larger than {} bytes", context_.options.max_header_bytes));
    } else {
      response = error_response(400, fmt::format("this is not HTTP: {}", error.message()));
    }
    response.close = true;
    return response;
  }

  /// Through the middleware to the handler. This function's frame holds the only pointer that is not the handler's.
  void dispatch(Request request, const Router::Match& match) {
    Exchange::Transport transport;
    transport.deliver = [self = shared_from_this()](Response response) {
      if (self->context_.stopped) return;
      // Directly when the handler answers at once, so that no watch begins.
      asio::dispatch(self->stream_.get_executor(), [self, response = std::move(response)]() mutable {
        self->answer_ = std::move(response);
        self->wake_.cancel();
      });
    };
    transport.post = [executor = io_](std::function<void()> work) { asio::post(executor, std::move(work)); };
    auto exchange = std::make_shared<Exchange>(std::move(request), std::move(transport));
    exchange_ = exchange;
    try {
      if (!enter_middleware(exchange, context_)) return;
      if (match.route == nullptr) {
        exchange->respond(match.refusal);
      } else {
        match.route->handler(exchange);
      }
    } catch (const std::exception& error) {
      spdlog::error("{} {}: {}", exchange->request().method, exchange->request().path, error.what());
      exchange->respond(error_response(500, "internal error"));
    }
  }

  asio::awaitable<void> wait_for_answer() {
    stream_.expires_never();
    watching_ = true;
    asio::co_spawn(stream_.get_executor(), watch(), [self = shared_from_this()](std::exception_ptr) {
      self->watching_ = false;
      self->wake_.cancel();
    });
    error_code ignored;
    while (!answer_) co_await wake_.async_wait(with(ignored));
    if (watching_) stream_.socket().cancel(ignored);
    while (watching_) co_await wake_.async_wait(with(ignored));
  }

  /// Notices that the client leaves while its request is worked on. What it sends meanwhile is kept for later.
  asio::awaitable<void> watch() {
    tcp::socket& socket = stream_.socket();
    error_code error;
    socket.non_blocking(true, error);
    while (!answer_ && buffer_.size() < kMaxPipelinedBytes) {
      co_await socket.async_wait(tcp::socket::wait_read, with(error));
      if (error) break;
      const std::size_t count = socket.read_some(buffer_.prepare(kReadBytes), error);
      if (error == asio::error::would_block) continue;
      if (error) {
        gone_ = true;
        if (const auto exchange = exchange_.lock()) exchange->notify_client_gone();
        break;
      }
      buffer_.commit(count);
    }
  }

  asio::awaitable<bool> write(Response& answer, unsigned version, bool keep_alive, bool head) {
    error_code error;
    stream_.expires_after(context_.options.write_timeout);
    auto message = to_message(answer, version, keep_alive);
    if (head) {
      bhttp::response_serializer<bhttp::string_body> serializer(message);
      serializer.split(true);
      co_await bhttp::async_write_header(stream_, serializer, with(error));
    } else {
      co_await bhttp::async_write(stream_, message, with(error));
    }
    co_return !error;
  }

  beast::tcp_stream stream_;        // its executor is the connection's strand
  const asio::any_io_executor io_;  // any I/O thread
  beast::flat_buffer buffer_;
  asio::steady_timer wake_;  // never expires; cancelled to wake serve_one()
  const Router& router_;
  ServerContext& context_;
  std::weak_ptr<Exchange> exchange_;
  std::optional<Response> answer_;
  bool idle_ = false;
  bool watching_ = false;
  bool gone_ = false;
};

asio::awaitable<void> refuse(tcp::socket socket, ServerContext& context) {
  beast::tcp_stream stream(std::move(socket));
  error_code error;
  Response busy = error_response(503, "too many connections");
  busy.headers.push_back({"Retry-After", "1"});
  if (context.options.render_error) context.options.render_error(Request{}, busy);
  context.metrics.add(telemetry::metric::kRequests, {"other", "503"});
  stream.expires_after(context.options.linger_timeout);
  auto message = to_message(busy, 11, false);
  co_await bhttp::async_write(stream, message, with(error));
  if (!error) co_await linger(stream, context.options.linger_timeout);
}

}  // namespace

std::shared_ptr<Connection> make_connection(tcp::socket socket, asio::any_io_executor io, const Router& router,
                                            ServerContext& context) {
  return std::make_shared<BeastConnection>(std::move(socket), std::move(io), router, context);
}

void refuse_connection(tcp::socket socket, ServerContext& context, std::function<void()> ended) {
  const auto executor = socket.get_executor();
  asio::co_spawn(executor, refuse(std::move(socket), context),
                 [ended = std::move(ended)](std::exception_ptr) { ended(); });
}

}  // namespace octavo::http
