// The documented call and its companions, over real sockets.
#include <thread>

#include "image/base64.h"
#include "image/infotext.h"
#include "image/png.h"
#include "tests/api/server_fixture.h"

namespace octavo::tests {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

image::DecodedPng picture(const boost::json::value& answer, std::size_t index) {
  return image::decode_png(image::base64_decode(text_of(answer.at("images").at(index))).value()).value();
}

std::vector<std::int64_t> numbers(const boost::json::value& array) {
  std::vector<std::int64_t> result;
  for (const auto& each : array.as_array()) result.push_back(each.as_int64());
  return result;
}

class Txt2Img : public ServerTest {};

TEST_F(Txt2Img, the_documented_call_answers_as_documented) {
  start();
  const Answer answer = draw(
      R"({"prompt": "a red apple", "negative_prompt": "blurry", "width": 256, "height": 128, "steps": 3, "cfg_scale": 7.0})");
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(answer.headers.at("content-type"), "application/json");
  EXPECT_THAT(answer.body, StartsWith("{\"images\":[\""));
  const auto body = parse(answer.body);
  const auto info = parse(text_of(body.at("info")));
  const std::int64_t seed = info.at("seed").as_int64();
  EXPECT_GE(seed, 0);

  const image::DecodedPng png = picture(body, 0);
  generation::GenerationRequest drawn;
  drawn.prompt = "a red apple";
  drawn.width = 256;
  drawn.height = 128;
  EXPECT_EQ(png.image.pixels, octavo::testing::FakeGenerator::picture(drawn, seed).pixels);
  ASSERT_EQ(png.texts.size(), 1u);
  EXPECT_EQ(png.texts[0].keyword, "parameters");
  EXPECT_EQ(png.texts[0].text, text_of(info.at("infotexts").at(0)));
  EXPECT_EQ(png.texts[0].text,
            "a red apple\nNegative prompt: blurry\nSteps: 3, Sampler: Euler, Schedule type: Normal, "
            "CFG scale: 7.0, Seed: " +
                std::to_string(seed) +
                ", Size: 256x128, Model hash: 0123456789, Model: fake, RNG: CPU, Version: octavo test");

  EXPECT_EQ(text_of(info.at("prompt")), "a red apple");
  EXPECT_EQ(text_of(info.at("negative_prompt")), "blurry");
  EXPECT_THAT(numbers(info.at("all_seeds")), ElementsAre(seed));
  EXPECT_EQ(text_of(info.at("sampler_name")), "Euler");
  EXPECT_EQ(info.at("width").as_int64(), 256);
  EXPECT_EQ(text_of(info.at("job_timestamp")).size(), 14u);
  EXPECT_THAT(text_of(body.at("info")), HasSubstr("\"cfg_scale\": 7.0, \"steps\": 3, "));

  const auto& echo = body.at("parameters");
  EXPECT_EQ(echo.at("seed").as_int64(), -1);  // raw: the seed drawn is in `info`
  EXPECT_TRUE(echo.at("sampler_name").is_null());
  EXPECT_EQ(text_of(echo.at("sampler_index")), "Euler");
  EXPECT_EQ(echo.at("batch_size").as_int64(), 1);
  EXPECT_TRUE(alive());
}

TEST_F(Txt2Img, pictures_of_a_call_use_consecutive_seeds_and_equal_single_calls) {
  start();
  const Answer four =
      draw(R"({"prompt": "a cat", "width": 128, "height": 128, "steps": 1, "seed": 40, "batch_size": 2, "n_iter": 2})");
  ASSERT_EQ(four.status, 200);
  const auto body = parse(four.body);
  EXPECT_EQ(body.at("images").as_array().size(), 4u);
  EXPECT_THAT(numbers(parse(text_of(body.at("info"))).at("all_seeds")), ElementsAre(40, 41, 42, 43));
  const auto single = parse(draw(R"({"prompt": "a cat", "width": 128, "height": 128, "steps": 1, "seed": 42})").body);
  EXPECT_EQ(picture(body, 2).image.pixels, picture(single, 0).image.pixels);
  EXPECT_THAT(picture(body, 2).texts.at(0).text, HasSubstr("Seed: 42"));
}

TEST_F(Txt2Img, text_beyond_latin1_survives_in_every_place) {
  start();
  const std::string prompt = "caf\xC3\xA9 \xF0\x9F\x90\xB1";
  const auto body = parse(draw("{\"prompt\": \"" + prompt + "\", \"width\": 128, \"height\": 128, \"steps\": 1}").body);
  EXPECT_EQ(text_of(body.at("parameters").at("prompt")), prompt);
  EXPECT_THAT(text_of(body.at("info")), HasSubstr("caf\\u00e9 \\ud83d\\udc31"));
  EXPECT_EQ(image::parse_infotext(picture(body, 0).texts.at(0).text).prompt, prompt);
}

TEST_F(Txt2Img, send_images_false_answers_without_pictures) {
  start();
  const auto body = parse(draw(R"({"prompt": "a cat", "steps": 1, "send_images": false})").body);
  EXPECT_TRUE(body.at("images").as_array().empty());
  EXPECT_EQ(parse(text_of(body.at("info"))).at("infotexts").as_array().size(), 1u);
}

TEST_F(Txt2Img, a_missing_content_type_is_json_and_another_is_not) {
  start();
  EXPECT_EQ(Client(server->port()).call("POST", "/sdapi/v1/txt2img", kSmall, "").status, 200);
  EXPECT_EQ(Client(server->port()).call("POST", "/sdapi/v1/txt2img", kSmall, "Content-Type: text/plain\r\n").status,
            422);
}

TEST_F(Txt2Img, a_failing_engine_answers_500_in_the_application_shape_and_goes_on) {
  start();
  for (const char* prompt : {"fail: NaN in the latents at step 1", "throw: out of luck"}) {
    const Answer answer = draw(std::string("{\"prompt\": \"") + prompt + "\", \"steps\": 2}");
    EXPECT_EQ(answer.status, 500);
    const auto body = parse(answer.body);
    EXPECT_EQ(text_of(body.at("error")), "RuntimeError");
    EXPECT_EQ(text_of(body.at("detail")), "");
    EXPECT_THAT(text_of(body.at("errors")), HasSubstr(std::string(prompt).substr(std::string(prompt).find(' ') + 1)));
  }
  EXPECT_TRUE(alive());
}

TEST_F(Txt2Img, progress_and_interrupt_while_it_runs) {
  start();
  const auto idle = parse(call("GET", "/sdapi/v1/progress").body);
  EXPECT_EQ(idle.at("progress").as_double(), 0.0);
  EXPECT_EQ(idle.at("state").at("job_count").as_int64(), 0);
  EXPECT_EQ(call("POST", "/sdapi/v1/interrupt").body, "{}");  // nothing to stop, and nothing lasting

  generator.close_gate();
  Client client(server->port());
  ASSERT_TRUE(client.send(
      request_bytes("POST", "/sdapi/v1/txt2img",
                    R"({"prompt": "a cat", "steps": 4, "seed": 3, "n_iter": 3, "width": 128, "height": 128})")));
  generator.wait_until_at_gate();
  const Answer asked = call("GET", "/sdapi/v1/progress?skip_current_image=true");
  const auto running = parse(asked.body);
  EXPECT_NEAR(running.at("progress").as_double(), 0.01 + 1.0 / 12, 1e-9);
  EXPECT_EQ(running.at("state").at("job_count").as_int64(), 3);
  EXPECT_EQ(running.at("state").at("sampling_step").as_int64(), 1);
  EXPECT_EQ(running.at("state").at("sampling_steps").as_int64(), 4);
  EXPECT_EQ(text_of(running.at("state").at("job")), "Batch 1 out of 3");
  EXPECT_TRUE(running.at("current_image").is_null());

  EXPECT_EQ(call("POST", "/sdapi/v1/interrupt", "\"\"").body, "{}");  // any body will do
  const Answer answer = client.receive();
  ASSERT_EQ(answer.status, 200);
  const auto body = parse(answer.body);
  EXPECT_TRUE(body.at("images").as_array().empty());
  EXPECT_THAT(numbers(parse(text_of(body.at("info"))).at("all_seeds")), ElementsAre(3, 4, 5));
  EXPECT_TRUE(metric_says("octavo_jobs_total{outcome=\"interrupted\"} 1"));
  generator.open_gate();
  EXPECT_TRUE(alive());
}

TEST_F(Txt2Img, skip_answers_null_and_ends_the_running_call) {
  start();
  generator.close_gate();
  Client client(server->port());
  ASSERT_TRUE(client.send(request_bytes("POST", "/sdapi/v1/txt2img", kSmall)));
  generator.wait_until_at_gate();
  EXPECT_EQ(call("POST", "/sdapi/v1/skip").body, "null");
  EXPECT_EQ(client.receive().status, 200);
}

TEST_F(Txt2Img, a_client_that_leaves_cancels_its_running_job) {
  start();
  generator.close_gate();
  Client leaving(server->port());
  ASSERT_TRUE(leaving.send(request_bytes("POST", "/sdapi/v1/txt2img", kSmall)));
  generator.wait_until_at_gate();
  leaving.close();
  EXPECT_TRUE(metric_says("octavo_jobs_total{outcome=\"cancelled\"} 1"));  // though the gate is still closed
  EXPECT_TRUE(metric_says("octavo_requests_total{code=\"499\",route=\"/sdapi/v1/txt2img\"} 1"));
  generator.open_gate();
  EXPECT_TRUE(alive());
}

TEST_F(Txt2Img, a_client_that_leaves_cancels_its_waiting_job_only) {
  start();
  generator.close_gate();
  Client first(server->port());
  ASSERT_TRUE(first.send(request_bytes("POST", "/sdapi/v1/txt2img", kSmall)));
  generator.wait_until_at_gate();
  Client leaving(server->port());
  ASSERT_TRUE(leaving.send(request_bytes("POST", "/sdapi/v1/txt2img", kSmall)));
  ASSERT_TRUE(eventually([&] { return store->figures().waiting == 1; }));
  leaving.close();
  EXPECT_TRUE(eventually([&] { return store->figures().waiting == 0; }));
  generator.open_gate();
  EXPECT_EQ(first.receive().status, 200);
  EXPECT_EQ(generator.runs_started(), 1);
}

TEST_F(Txt2Img, a_full_queue_is_503_with_retry_after) {
  store_options.queue_limit = 1;
  start();
  generator.close_gate();
  Client running(server->port()), waiting(server->port());
  ASSERT_TRUE(running.send(request_bytes("POST", "/sdapi/v1/txt2img", kSmall)));
  generator.wait_until_at_gate();
  ASSERT_TRUE(waiting.send(request_bytes("POST", "/sdapi/v1/txt2img", kSmall)));
  ASSERT_TRUE(eventually([&] { return store->figures().waiting == 1; }));
  const Answer refused = draw(kSmall);
  EXPECT_EQ(refused.status, 503);
  EXPECT_GE(std::stoi(refused.headers.at("retry-after")), 1);
  EXPECT_THAT(text_of(parse(refused.body).at("detail")), HasSubstr("1 jobs are waiting"));
  generator.open_gate();
  EXPECT_EQ(running.receive().status, 200);
  EXPECT_EQ(waiting.receive().status, 200);
}

TEST_F(Txt2Img, eight_clients_get_their_own_pictures) {
  start();
  std::vector<std::thread> clients;
  std::atomic<int> right = 0;
  for (int c = 0; c < 8; ++c) {
    clients.emplace_back([&, c] {
      Client client(server->port());
      for (int i = 0; i < 5; ++i) {
        const std::string prompt = "client " + std::to_string(c) + " picture " + std::to_string(i);
        const auto body = parse(client
                                    .call("POST", "/sdapi/v1/txt2img",
                                          "{\"prompt\": \"" + prompt + "\", \"seed\": " + std::to_string(100 * c + i) +
                                              ", \"width\": 128, \"height\": 128, \"steps\": 2}")
                                    .body);
        generation::GenerationRequest own;
        own.prompt = prompt;
        own.width = own.height = 128;
        if (picture(body, 0).image.pixels == octavo::testing::FakeGenerator::picture(own, 100 * c + i).pixels) ++right;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(right, 40);
}

TEST_F(Txt2Img, drain_finishes_what_was_accepted_and_refuses_the_rest) {
  start();
  generator.close_gate();
  Client running(server->port()), waiting(server->port()), idle(server->port());
  EXPECT_EQ(idle.call("GET", "/v2/health/ready").status, 200);
  ASSERT_TRUE(running.send(request_bytes("POST", "/sdapi/v1/txt2img", kSmall)));
  generator.wait_until_at_gate();
  ASSERT_TRUE(waiting.send(request_bytes("POST", "/sdapi/v1/txt2img", kSmall)));
  ASSERT_TRUE(eventually([&] { return store->figures().waiting == 1; }));

  server->begin_drain();
  store->close();
  EXPECT_TRUE(idle.closed_by_server());
  generator.open_gate();
  for (Client* client : {&running, &waiting}) {
    const Answer answer = client->receive();
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.headers.at("connection"), "close");
    client->close();
  }
  EXPECT_TRUE(server->wait_idle(std::chrono::seconds(10)));
  engine->join();
  EXPECT_THROW(Client(server->port()), CheckFailure);
}

TEST_F(Txt2Img, a_post_that_arrives_while_draining_is_503_and_gets_are_answered) {
  start();
  generator.close_gate();
  Client busy(server->port()), prober(server->port());
  const std::string request = request_bytes("POST", "/sdapi/v1/txt2img", kSmall);
  ASSERT_TRUE(busy.send(request));
  generator.wait_until_at_gate();
  // In one piece with a request before it: when that one is answered, the server has begun to read the next.
  ASSERT_TRUE(prober.send(request_bytes("GET", "/internal/ping", "") + request.substr(0, 30)));
  EXPECT_EQ(prober.receive().status, 200);
  server->begin_drain();
  ASSERT_TRUE(prober.send(request.substr(30)));
  const Answer refused = prober.receive();
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.headers.at("retry-after"), "1");
  generator.open_gate();
  EXPECT_EQ(busy.receive().status, 200);
}

}  // namespace
}  // namespace octavo::tests
