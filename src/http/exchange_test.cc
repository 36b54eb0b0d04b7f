#include "http/exchange.h"

#include <gtest/gtest.h>

#include "http/middleware.h"

namespace octavo::http {
namespace {

class ExchangeTest : public ::testing::Test {
 protected:
  std::shared_ptr<Exchange> make(Request request = {}) {
    return std::make_shared<Exchange>(
        std::move(request), Exchange::Transport{[this](Response response) { delivered.push_back(std::move(response)); },
                                                [](const std::function<void()>& work) { work(); }});
  }
  std::vector<Response> delivered;
};

TEST_F(ExchangeTest, only_the_first_answer_counts) {
  const auto exchange = make();
  EXPECT_FALSE(exchange->responded());
  exchange->respond({.status = 200, .body = "first"});
  exchange->respond({.status = 200, .body = "second"});
  ASSERT_EQ(delivered.size(), 1u);
  EXPECT_EQ(delivered[0].body, "first");
  EXPECT_TRUE(exchange->responded());
}

TEST_F(ExchangeTest, dropped_without_an_answer_it_answers_500) {
  make().reset();
  ASSERT_EQ(delivered.size(), 1u);
  EXPECT_EQ(delivered[0].status, 500);
}

TEST_F(ExchangeTest, hooks_run_last_added_first) {
  const auto exchange = make();
  exchange->before_send([](const Exchange&, Response& response) { response.body += "1"; });
  exchange->before_send([](const Exchange&, Response& response) { response.body += "2"; });
  exchange->respond({.body = ""});
  EXPECT_EQ(delivered.at(0).body, "21");
}

TEST_F(ExchangeTest, callbacks_hear_once_that_the_client_left) {
  const auto exchange = make();
  int calls = 0;
  exchange->on_client_gone([&] { ++calls; });
  exchange->notify_client_gone();
  exchange->notify_client_gone();
  EXPECT_EQ(calls, 1);
  exchange->on_client_gone([&] { ++calls; });  // it has left already
  EXPECT_EQ(calls, 2);
  exchange->respond({});
}

TEST_F(ExchangeTest, an_answer_drops_the_callbacks_unused) {
  auto exchange = make();
  int calls = 0;
  const std::weak_ptr<Exchange> watch = exchange;
  exchange->on_client_gone([&calls, exchange] { ++calls; });  // a cycle until the answer
  exchange->respond({});
  exchange->notify_client_gone();
  exchange.reset();
  EXPECT_EQ(calls, 0);
  EXPECT_TRUE(watch.expired());
}

class MiddlewareTest : public ExchangeTest {
 protected:
  MiddlewareTest() { options.log_requests = false; }
  ServerOptions options;
  telemetry::Metrics metrics;
  ServerContext context{.options = options, .metrics = metrics};
};

TEST_F(MiddlewareTest, every_row_says_why_it_stands_where_it_does) {
  for (const MiddlewareRow& row : middleware()) EXPECT_GT(std::string(row.reason).size(), 10u) << row.name;
  EXPECT_STREQ(middleware().front().name, "request_id");
}

TEST_F(MiddlewareTest, refusals_carry_an_id_a_body_and_a_count) {
  Request request;
  request.method = "POST";
  request.route = "/x";
  request.headers = {{"X-Request-Id", "mine"}};
  context.draining = true;
  EXPECT_FALSE(enter_middleware(make(request), context));
  ASSERT_EQ(delivered.size(), 1u);
  EXPECT_EQ(delivered[0].status, 503);
  EXPECT_EQ(delivered[0].body, "the server is shutting down\n");
  EXPECT_EQ(delivered[0].headers.at(0).name, "Retry-After");
  EXPECT_EQ(delivered[0].headers.back().value, "mine");
  EXPECT_NE(metrics.exposition().find("octavo_requests_total{code=\"503\",route=\"/x\"} 1\n"), std::string::npos);
}

TEST_F(MiddlewareTest, reading_is_still_allowed_while_draining) {
  Request request;
  request.method = "GET";
  request.route = "/x";
  context.draining = true;
  const auto exchange = make(request);
  EXPECT_TRUE(enter_middleware(exchange, context));
  exchange->respond({});
}

}  // namespace
}  // namespace octavo::http
