// The endpoints of AUTOMATIC1111's API that this server speaks. Answers follow v1.10.1; where we differ, the endpoint's
// file says so. None of them waits: txt2img submits a job and answers when it ends.
#pragma once

#include <memory>

#include "api/service.h"
#include "http/exchange.h"

namespace octavo::api::a1111 {

/// POST /sdapi/v1/txt2img. The job is cancelled when the client leaves.
void txt2img(const Service& service, const std::shared_ptr<http::Exchange>& exchange);
/// GET /sdapi/v1/progress: of the longest running job.
void progress(const Service& service, const std::shared_ptr<http::Exchange>& exchange);
/// POST /sdapi/v1/interrupt: every running job ends at its next step and answers with the pictures it has.
void interrupt(const Service& service, const std::shared_ptr<http::Exchange>& exchange);
/// POST /sdapi/v1/skip: as interrupt. (A1111 goes on with the call's next picture; here the call ends.)
void skip(const Service& service, const std::shared_ptr<http::Exchange>& exchange);
void samplers(const Service& service, const std::shared_ptr<http::Exchange>& exchange);
void schedulers(const Service& service, const std::shared_ptr<http::Exchange>& exchange);
void sd_models(const Service& service, const std::shared_ptr<http::Exchange>& exchange);
void get_options(const Service& service, const std::shared_ptr<http::Exchange>& exchange);
/// POST /sdapi/v1/options: accepts what GET returned and stores nothing: no option can be changed. Another model than
/// the loaded one is refused as A1111 refuses an unknown one.
void set_options(const Service& service, const std::shared_ptr<http::Exchange>& exchange);

}  // namespace octavo::api::a1111
