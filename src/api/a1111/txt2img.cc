#include <memory>

#include "api/a1111/endpoints.h"
#include "api/a1111/errors.h"
#include "api/a1111/timestamp.h"
#include "api/a1111/txt2img_request.h"
#include "api/a1111/txt2img_response.h"
#include "base/log.h"
#include "telemetry/stages.h"

namespace octavo::api::a1111 {
namespace {

http::Response refuse_submission(const Service& service, const Status& refusal) {
  const bool full = refusal.code() == ErrorCode::kResourceExhausted;
  http::Response response = application_error(503, "HTTPException", refusal.to_string(), "");
  response.headers.push_back({"Retry-After", std::to_string(full ? service.store.figures().retry_after_seconds : 1)});
  return response;
}

http::Response render(const Service& service, const Txt2ImgCall& call, const scheduling::Job& job) {
  if (job.state() != scheduling::JobState::kSucceeded) return render_job_error(job.error);
  const Clock::TimePoint started = service.clock.now();
  auto response = render_txt2img(call, *job.result, service.capabilities, service.version,
                                 job_timestamp(job.started_at, service.clock));
  service.metrics.observe(telemetry::metric::kStageSeconds, {telemetry::kEncodeImage},
                          seconds(service.clock.now() - started));
  return response.ok() ? *std::move(response) : render_job_error(response.status());
}

}  // namespace

void txt2img(const Service& service, const std::shared_ptr<http::Exchange>& exchange) {
  Txt2ImgOrRefusal parsed = parse_txt2img(exchange->request(), service.capabilities);
  if (auto* refusal = std::get_if<http::Response>(&parsed)) return exchange->respond(std::move(*refusal));
  const auto call = std::make_shared<const Txt2ImgCall>(std::get<Txt2ImgCall>(std::move(parsed)));

  const auto submitted = service.store.submit(call->request);
  if (!submitted.ok()) return exchange->respond(refuse_submission(service, submitted.status()));
  const std::string& job_id = *submitted;
  const Status watched = service.store.on_finished(job_id, [&service, exchange, call](const scheduling::Job& ended) {
    // This is the engine's thread (or one that cancels): pictures are encoded elsewhere.
    exchange->run_on_io([&service, exchange, call, job = ended] {
      service.store.forget(job.id);
      if (!exchange->client_gone()) return exchange->respond(render(service, *call, job));
      exchange->respond(render_job_error(cancelled("the client left")));
    });
  });
  if (!watched.ok()) return exchange->respond(render_job_error(watched));
  exchange->on_client_gone([&service, job_id] {
    const Status cancelled_status = service.store.cancel(job_id);
    if (!cancelled_status.ok()) spdlog::debug("job {}: {}", job_id, cancelled_status.to_string());
  });
}

}  // namespace octavo::api::a1111
