// The body of POST /sdapi/v1/txt2img, read into what we draw. A pure function: no service, no transport.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <variant>

#include "generation/generation.h"
#include "http/message.h"

namespace octavo::api::a1111 {

struct Txt2ImgCall {
  generation::GenerationRequest request;  // resolved; keep_partial is set: an interrupted call answers with its part
  int batch_size = 1;
  int iterations = 1;  // request.image_count = batch_size * iterations
  bool send_images = true;
  std::string parameters;  // JSON: every field with defaults applied, in A1111's order, as the answer echoes it
};

/// The call, or the answer that refuses it (422, naming each field at fault in pydantic's shape).
using Txt2ImgOrRefusal = std::variant<Txt2ImgCall, http::Response>;

/// Coercion, defaults and nullability are A1111's; unknown fields are ignored. Ours: width, height, steps and
/// cfg_scale default to the model's; values outside what the model can draw are refused; sizes are rounded down to
/// the model's multiple, as A1111 does for this family; what would change the picture and is not built
/// (enable_hr, scripts) is refused, what would not is ignored.
Txt2ImgOrRefusal parse_txt2img(std::string_view json, const generation::Capabilities& capabilities);

/// As above, for a request's body and content type.
Txt2ImgOrRefusal parse_txt2img(const http::Request& request, const generation::Capabilities& capabilities);

}  // namespace octavo::api::a1111
