// Any bytes as the body of POST /sdapi/v1/txt2img: the answer is a 422 in JSON, or a call that the model can draw.
#include <boost/json/parse.hpp>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "api/a1111/txt2img_request.h"

namespace {

bool is_json(const std::string& text) {
  boost::json::error_code error;
  (void)boost::json::parse(text, error);
  return !error;
}

const octavo::generation::Capabilities& capabilities() {
  static const auto made = [] {
    octavo::generation::Capabilities can;
    can.model_name = "fuzz";
    can.samplers = {{.name = "euler", .label = "Euler", .aliases = {"k_euler"}, .schedule = "normal"}};
    can.schedules = {{.name = "normal", .label = "Normal", .aliases = {}, .schedule = ""},
                     {.name = "sgm_uniform", .label = "SGM Uniform", .aliases = {"sgmuniform"}, .schedule = ""},
                     {.name = "simple", .label = "Simple", .aliases = {}, .schedule = ""}};
    return can;
  }();
  return made;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace octavo;
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  const auto parsed = api::a1111::parse_txt2img(body, capabilities());
  if (const auto* refusal = std::get_if<http::Response>(&parsed)) {
    if (refusal->status != 422 || !is_json(refusal->body)) std::abort();
    return 0;
  }
  const auto& call = std::get<api::a1111::Txt2ImgCall>(parsed);
  if (!generation::resolve(call.request, capabilities()).ok()) std::abort();
  if (call.request.image_count != call.batch_size * call.iterations || !is_json(call.parameters)) std::abort();
  return 0;
}
