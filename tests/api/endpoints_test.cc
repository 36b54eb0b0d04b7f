// The small endpoints.
#include "tests/api/server_fixture.h"

namespace octavo::tests {
namespace {

using ::testing::HasSubstr;

class Endpoints : public ServerTest {};

TEST_F(Endpoints, lists_have_a1111s_shapes) {
  start();
  const auto sampler = parse(call("GET", "/sdapi/v1/samplers").body).at(0);
  EXPECT_EQ(text_of(sampler.at("name")), "Euler");
  EXPECT_EQ(text_of(sampler.at("aliases").at(0)), "k_euler");
  EXPECT_TRUE(sampler.at("options").is_object());
  const auto schedulers = parse(call("GET", "/sdapi/v1/schedulers").body).as_array();
  EXPECT_EQ(schedulers.size(), 4u);
  EXPECT_EQ(text_of(schedulers[0].at("name")), "automatic");
  EXPECT_EQ(text_of(schedulers[2].at("label")), "SGM Uniform");
  const auto model = parse(call("GET", "/sdapi/v1/sd-models").body).at(0);
  EXPECT_EQ(text_of(model.at("title")), "fake [0123456789]");
  EXPECT_EQ(text_of(model.at("model_name")), "fake");
}

TEST_F(Endpoints, options_can_be_sent_back_and_another_model_is_refused) {
  start();
  const std::string options = call("GET", "/sdapi/v1/options").body;
  EXPECT_EQ(text_of(parse(options).at("sd_model_checkpoint")), "fake [0123456789]");
  const Answer back = call("POST", "/sdapi/v1/options", options);
  EXPECT_EQ(back.status, 200);
  EXPECT_EQ(back.body, "null");
  for (const char* name : {"fake", "0123456789", ""}) {
    EXPECT_EQ(call("POST", "/sdapi/v1/options", std::string("{\"sd_model_checkpoint\": \"") + name + "\"}").status,
              200);
  }
  const Answer other = call("POST", "/sdapi/v1/options", R"({"sd_model_checkpoint": "../etc/passwd"})");
  EXPECT_EQ(other.status, 500);
  EXPECT_EQ(text_of(parse(other.body).at("errors")), "model '../etc/passwd' not found");
  EXPECT_EQ(call("POST", "/sdapi/v1/options", "[1]").status, 422);
}

TEST_F(Endpoints, health_and_metrics_and_welcome) {
  start();
  EXPECT_EQ(call("GET", "/v2/health/live").body, R"({"live":true})");
  EXPECT_EQ(call("GET", "/v2/health/ready").body, R"({"live":true,"ready":true})");
  EXPECT_EQ(call("GET", "/internal/ping").body, "{}");
  ASSERT_TRUE(alive());
  const Answer metrics_answer = call("GET", "/metrics");
  EXPECT_THAT(metrics_answer.headers.at("content-type"), HasSubstr("text/plain; version=0.0.4"));
  for (const char* line : {"octavo_requests_total{code=\"200\",route=\"/sdapi/v1/txt2img\"} 1\n",
                           "octavo_images_total 1\n", "octavo_stage_seconds_count{stage=\"encode_image\"} 1\n"}) {
    EXPECT_THAT(metrics_answer.body, HasSubstr(line));
  }
  EXPECT_THAT(call("GET", "/").body, HasSubstr("/sdapi/v1/txt2img"));
}

TEST_F(Endpoints, ready_says_draining) {
  start();
  generator.close_gate();
  Client busy(server->port()), prober(server->port());
  ASSERT_TRUE(busy.send(request_bytes("POST", "/sdapi/v1/txt2img", kSmall)));
  generator.wait_until_at_gate();
  const std::string probe = request_bytes("GET", "/v2/health/ready", "");
  // In one piece with a request before it: when that one is answered, the server has begun to read the next.
  ASSERT_TRUE(prober.send(request_bytes("GET", "/internal/ping", "") + probe.substr(0, 10)));
  EXPECT_EQ(prober.receive().status, 200);
  server->begin_drain();
  ASSERT_TRUE(prober.send(probe.substr(10)));
  const Answer answer = prober.receive();
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.body, R"({"live":true,"ready":false,"reason":"draining"})");
}

}  // namespace
}  // namespace octavo::tests
