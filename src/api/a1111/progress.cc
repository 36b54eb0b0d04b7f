#include <algorithm>

#include "api/a1111/endpoints.h"
#include "api/a1111/errors.h"
#include "api/a1111/timestamp.h"
#include "api/json_writer.h"

namespace octavo::api::a1111 {
namespace {

/// pydantic's booleans in a query. Parsed only to refuse what A1111 refuses: there is no preview to skip.
bool is_bool_text(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  for (const char* word : {"0", "off", "f", "false", "n", "no", "1", "on", "t", "true", "y", "yes"}) {
    if (text == word) return true;
  }
  return false;
}

}  // namespace

void progress(const Service& service, const std::shared_ptr<http::Exchange>& exchange) {
  std::string skip_preview;
  if (http::query_value(exchange->request().query, "skip_current_image", &skip_preview) &&
      !is_bool_text(skip_preview)) {
    return exchange->respond(validation_response(
        {{{"query", "skip_current_image"}, "value could not be parsed to a boolean", "type_error.bool", "", {}}}));
  }
  const std::vector<scheduling::Job> running = service.store.running();
  const std::size_t waiting = service.store.figures().waiting;
  double fraction = 0, eta_seconds = 0;
  std::string name, timestamp = "0";
  // Clients take progress 0 with job_count 0 for "idle": a waiting job must not look so.
  std::int64_t job_count = static_cast<std::int64_t>(waiting), job_number = 0, step = 0, steps = 0;
  bool stopping = false;
  if (!running.empty()) {
    const scheduling::Job& job = running.front();
    job_count = job.request.image_count;
    job_number = job.progress.image_index;
    step = job.progress.step;
    steps = job.request.steps;
    fraction = std::min(1.0, 0.01 + job.progress.fraction());  // A1111's formula: running is never 0
    const double elapsed = seconds(service.clock.now() - job.started_at);
    eta_seconds = elapsed / fraction - elapsed;
    name = job_count > 1 ? fmt::format("Batch {} out of {}", job_number + 1, job_count) : "scripts_txt2img";
    timestamp = job_timestamp(job.started_at, service.clock);
    stopping = job.cancel.cancelled();
  }
  JsonWriter json;
  json.begin_object().key("progress").real(fraction).key("eta_relative").real(eta_seconds);
  json.key("state").begin_object().key("skipped").boolean(false).key("interrupted").boolean(stopping);
  json.key("stopping_generation").boolean(false).key("job").string(name).key("job_count").number(job_count);
  json.key("job_timestamp").string(timestamp).key("job_no").number(job_number);
  json.key("sampling_step").number(step).key("sampling_steps").number(steps).end_object();
  json.key("current_image").null().key("textinfo").null().end_object();
  http::Response response;
  response.body = json.take();
  exchange->respond(std::move(response));
}

}  // namespace octavo::api::a1111
