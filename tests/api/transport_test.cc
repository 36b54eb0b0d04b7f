// What the transport promises, with small limits: sizes, times, connections, methods, shapes.
#include <thread>

#include "tests/api/server_fixture.h"

namespace octavo::tests {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

class Transport : public ServerTest {};

TEST_F(Transport, a_connection_serves_many_requests_and_pipelined_ones) {
  start();
  Client client(server->port());
  for (int i = 0; i < 3; ++i) {
    const Answer answer = client.call("POST", "/sdapi/v1/txt2img", kSmall);
    EXPECT_EQ(answer.status, 200);
  }
  const std::string draw_request = request_bytes("POST", "/sdapi/v1/txt2img", kSmall);
  ASSERT_TRUE(client.send(draw_request + request_bytes("GET", "/v2/health/live", "") + draw_request));
  EXPECT_THAT(client.receive().body, HasSubstr("images"));
  EXPECT_EQ(client.receive().body, R"({"live":true})");
  EXPECT_THAT(client.receive().body, HasSubstr("images"));
}

TEST_F(Transport, http_1_0_and_connection_close_end_the_connection) {
  start();
  Client old(server->port());
  ASSERT_TRUE(old.send("GET /v2/health/live HTTP/1.0\r\n\r\n"));
  EXPECT_EQ(old.receive().status, 200);
  EXPECT_TRUE(old.closed_by_server());
  Client closing(server->port());
  EXPECT_EQ(closing.call("GET", "/v2/health/live", "", "Connection: close\r\n").headers.at("connection"), "close");
  EXPECT_TRUE(closing.closed_by_server());
}

TEST_F(Transport, wrong_routes_and_methods_have_the_frameworks_shape) {
  start();
  const Answer missing = call("GET", "/no/such/route");
  EXPECT_EQ(missing.status, 404);
  EXPECT_EQ(missing.body, R"({"detail":"Not Found"})");
  const Answer method = call("DELETE", "/sdapi/v1/txt2img");
  EXPECT_EQ(method.status, 405);
  EXPECT_EQ(method.body, R"({"detail":"Method Not Allowed"})");
  EXPECT_EQ(method.headers.at("allow"), "POST");
  EXPECT_EQ(call("HEAD", "/sdapi/v1/samplers").status, 405);
  EXPECT_EQ(call("OPTIONS", "/sdapi/v1/samplers").status, 405);
  const Answer slash = call("GET", "/sdapi/v1/progress/?skip_current_image=true");
  EXPECT_EQ(slash.status, 307);
  EXPECT_EQ(slash.headers.at("location"), "/sdapi/v1/progress?skip_current_image=true");
  EXPECT_EQ(call("GET", "/%2e%2e/%2e%2e/etc/passwd").status, 404);
}

TEST_F(Transport, head_has_headers_only_and_the_connection_goes_on) {
  start();
  Client client(server->port());
  const Answer head = client.call("HEAD", "/");
  EXPECT_EQ(head.status, 200);
  const Answer get = client.call("GET", "/");
  EXPECT_EQ(head.headers.at("content-length"), std::to_string(get.body.size()));
}

TEST_F(Transport, answers_carry_an_id_and_the_time_they_took) {
  start();
  const Answer own = call("GET", "/");
  EXPECT_EQ(own.headers.at("x-request-id").size(), 32u);
  EXPECT_THAT(own.headers.at("x-process-time"), ::testing::MatchesRegex("[0-9]+\\.[0-9][0-9][0-9][0-9]"));
  Client client(server->port());
  EXPECT_EQ(client.call("GET", "/", "", "X-Request-Id: abc-1.2_3\r\n").headers.at("x-request-id"), "abc-1.2_3");
  EXPECT_NE(client.call("GET", "/", "", "X-Request-Id: a b\r\n").headers.at("x-request-id"), "a b");
}

TEST_F(Transport, a_body_over_the_limit_is_413_however_it_is_sent) {
  http_options.max_body_bytes = 10000;
  start();
  const std::string large(20000, ' ');
  const Answer announced = draw(large);
  EXPECT_EQ(announced.status, 413);
  EXPECT_EQ(text_of(parse(announced.body).at("error")), "HTTPException");
  EXPECT_EQ(text_of(parse(announced.body).at("detail")), "the body is larger than 10000 bytes");
  Client chunked(server->port());
  ASSERT_TRUE(chunked.send("POST /sdapi/v1/txt2img HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"));
  for (int i = 0; i < 11; ++i) chunked.send("3e8\r\n" + std::string(1000, ' ') + "\r\n");
  EXPECT_EQ(chunked.receive().status, 413);
  Client lying(server->port());
  ASSERT_TRUE(lying.send("POST /sdapi/v1/txt2img HTTP/1.1\r\nContent-Length: 99999999999999\r\n\r\n"));
  EXPECT_EQ(lying.receive().status, 413);
  EXPECT_TRUE(alive());
}

TEST_F(Transport, a_chunked_body_is_read) {
  start();
  Client client(server->port());
  const std::string body = kSmall;
  std::string chunks;
  for (const char c : body) chunks += std::string("1\r\n") + c + "\r\n";
  ASSERT_TRUE(client.send("POST /sdapi/v1/txt2img HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks +
                          "0\r\n\r\n"));
  EXPECT_EQ(client.receive().status, 200);
}

TEST_F(Transport, expect_100_continue_is_answered_before_the_body) {
  start();
  Client client(server->port());
  const std::string body = kSmall;
  ASSERT_TRUE(client.send("POST /sdapi/v1/txt2img HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: " +
                          std::to_string(body.size()) + "\r\n\r\n"));
  std::thread sender([&] {
    std::this_thread::sleep_for(milliseconds(20));
    client.send(body);
  });
  EXPECT_EQ(client.receive().status, 200);
  sender.join();
}

TEST_F(Transport, headers_and_targets_over_their_limits_are_refused) {
  http_options.max_header_bytes = 4000;
  http_options.max_target_bytes = 1000;
  start();
  EXPECT_EQ(Client(server->port()).call("GET", "/", "", "X-Large: " + std::string(5000, 'x') + "\r\n").status, 431);
  EXPECT_EQ(call("GET", "/" + std::string(2000, 'x')).status, 414);
  EXPECT_EQ(call("GET", "/" + std::string(5000, 'x')).status, 431);
  EXPECT_TRUE(alive());
}

TEST_F(Transport, what_is_not_http_is_400) {
  start();
  for (const std::string& bytes :
       {std::string("nonsense\r\n\r\n"), std::string("GET / HTTP/9.9\r\n\r\n"), std::string("\0\0\0\0\r\n\r\n", 8),
        std::string("GET / HTTP/1.1\r\nbad header\r\n\r\n"),
        std::string("POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n"),
        std::string("POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
        std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 15)}) {
    Client client(server->port());
    ASSERT_TRUE(client.send(bytes));
    EXPECT_EQ(client.receive().status, 400) << bytes;
    EXPECT_TRUE(client.closed_by_server());
  }
  EXPECT_TRUE(alive());
}

TEST_F(Transport, slow_clients_are_closed) {
  http_options.header_timeout = milliseconds(300);
  http_options.body_timeout = milliseconds(300);
  http_options.idle_timeout = milliseconds(300);
  start();
  Client idle(server->port());
  EXPECT_EQ(idle.call("GET", "/").status, 200);
  Client silent(server->port()), slow_header(server->port()), slow_body(server->port());
  ASSERT_TRUE(slow_header.send("GET / HTTP/1.1\r\nHost: "));
  ASSERT_TRUE(slow_body.send("POST /sdapi/v1/txt2img HTTP/1.1\r\nContent-Length: 100\r\n\r\n{"));
  // A byte now and then does not help: the limit is on the whole header.
  std::thread dripping([&] {
    for (int i = 0; i < 100 && slow_header.send("x"); ++i) std::this_thread::sleep_for(milliseconds(10));
  });
  for (Client* client : {&silent, &slow_body, &idle}) EXPECT_TRUE(client->closed_by_server());
  dripping.join();
  EXPECT_EQ(slow_header.receive().status, 0);
  EXPECT_TRUE(alive());
}

TEST_F(Transport, a_job_may_take_longer_than_the_timeouts_of_a_client) {
  http_options.header_timeout = milliseconds(300);
  http_options.body_timeout = milliseconds(300);
  http_options.idle_timeout = milliseconds(300);
  start();
  generator.set_step_time(milliseconds(200));
  EXPECT_TRUE(alive());
}

TEST_F(Transport, a_client_that_does_not_read_its_answer_is_closed) {
  http_options.write_timeout = milliseconds(100);
  start();
  Client client(server->port());
  // 64 pictures of 384x384: more than the kernel's buffers hold.
  ASSERT_TRUE(
      client.send(request_bytes("POST", "/sdapi/v1/txt2img",
                                R"({"prompt": "a cat", "width": 384, "height": 384, "steps": 1, "batch_size": 64})")));
  EXPECT_TRUE(metric_says("octavo_requests_total{code=\"200\",route=\"/sdapi/v1/txt2img\"} 1"));
  EXPECT_TRUE(metric_says("octavo_connections 0"));
  EXPECT_TRUE(alive());
}

TEST_F(Transport, connections_over_the_limit_are_503) {
  http_options.max_connections = 2;
  start();
  Client first(server->port()), second(server->port());
  EXPECT_EQ(first.call("GET", "/").status, 200);
  EXPECT_EQ(second.call("GET", "/").status, 200);
  {
    Client third(server->port());
    const Answer refused = third.receive();
    EXPECT_EQ(refused.status, 503);
    EXPECT_EQ(refused.headers.at("retry-after"), "1");
    EXPECT_THAT(refused.body, HasSubstr("too many connections"));
  }
  first.close();
  EXPECT_TRUE(eventually([&] { return call("GET", "/").status == 200; }));
  EXPECT_EQ(second.call("GET", "/").status, 200);
}

TEST_F(Transport, a_taken_port_is_named) {
  start();
  http::ServerOptions same = http_options;
  same.port = server->port();
  const auto second = http::Server::start(same, http::Router({}), metrics);
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(second.status().to_string(), HasSubstr("port " + std::to_string(server->port()) + ": is in use"));
  same.address = "not an address";
  EXPECT_EQ(http::Server::start(same, http::Router({}), metrics).status().subject(), "address");
  same.address = "127.0.0.1";
  same.port = 70000;
  EXPECT_EQ(http::Server::start(same, http::Router({}), metrics).status().subject(), "port");
}

TEST_F(Transport, handlers_that_throw_or_forget_to_answer_give_500) {
  std::vector<http::Route> routes;
  routes.push_back(
      {"GET", "/throw", [](const std::shared_ptr<http::Exchange>&) { throw std::runtime_error("secret"); }});
  routes.push_back({"GET", "/forget", [](const std::shared_ptr<http::Exchange>&) {}});
  routes.push_back({"GET", "/late", [](const std::shared_ptr<http::Exchange>& exchange) {
                      std::thread([exchange] {
                        exchange->run_on_io([exchange] {
                          exchange->respond({.body = "\"first\""});
                          exchange->respond({.body = "\"second\""});
                        });
                      }).detach();
                    }});
  const auto own = http::Server::start(http_options, http::Router(std::move(routes)), metrics).value();
  Client client(own->port());
  const Answer thrown = client.call("GET", "/throw");
  EXPECT_EQ(thrown.status, 500);
  EXPECT_THAT(thrown.body, ::testing::Not(HasSubstr("secret")));
  EXPECT_EQ(client.call("GET", "/forget").status, 500);
  EXPECT_EQ(client.call("GET", "/late").body, "\"first\"");
}

}  // namespace
}  // namespace octavo::tests
