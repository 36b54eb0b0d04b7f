// The answer of POST /sdapi/v1/txt2img.
#pragma once

#include <string>
#include <string_view>

#include "api/a1111/txt2img_request.h"
#include "generation/generation.h"
#include "http/message.h"

namespace octavo::api::a1111 {

/// {"images":[base64 PNG],"parameters":{...},"info":"..."}; each PNG carries its infotext. Pictures an interrupt left
/// out are missing from `images` and `infotexts`; `all_seeds` keeps its full length, as in A1111.
/// `job_timestamp` is "YYYYMMDDHHMMSS".
Result<http::Response> render_txt2img(const Txt2ImgCall& call, const generation::GenerationResult& result,
                                      const generation::Capabilities& capabilities, std::string_view version,
                                      std::string_view job_timestamp);

/// A job that ended without a result, in the application's error shape: 503 when it was cancelled, else 500.
http::Response render_job_error(const Status& error);

}  // namespace octavo::api::a1111
