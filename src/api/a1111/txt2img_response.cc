#include "api/a1111/txt2img_response.h"

#include <algorithm>
#include <vector>

#include "api/a1111/errors.h"
#include "api/json_writer.h"
#include "generation/infotext.h"
#include "image/base64.h"
#include "image/infotext.h"
#include "image/png.h"

namespace octavo::api::a1111 {
namespace {

constexpr const char* kPngKeyword = "parameters";

std::string info_json(const Txt2ImgCall& call, const generation::GenerationResult& result,
                      const generation::Capabilities& can, std::string_view version, std::string_view job_timestamp,
                      const std::vector<std::string>& infotexts) {
  const generation::GenerationRequest& drawn = result.request;
  const auto repeat = [&](JsonWriter& json, const std::string& text) {
    json.begin_array();
    for (int i = 0; i < drawn.image_count; ++i) json.string(text);
    json.end_array();
  };
  JsonWriter json(JsonStyle::kPython);
  json.begin_object().key("prompt").string(drawn.prompt).key("all_prompts");
  repeat(json, drawn.prompt);
  json.key("negative_prompt").string(drawn.negative_prompt).key("all_negative_prompts");
  repeat(json, drawn.negative_prompt);
  const generation::ImageSeeds first_seeds = generation::image_seeds(drawn, 0);
  json.key("seed").number(first_seeds.seed).key("all_seeds").begin_array();
  for (int i = 0; i < drawn.image_count; ++i) json.number(generation::image_seeds(drawn, i).seed);
  json.end_array().key("subseed").number(first_seeds.subseed).key("all_subseeds").begin_array();
  for (int i = 0; i < drawn.image_count; ++i) json.number(generation::image_seeds(drawn, i).subseed);
  json.end_array().key("subseed_strength").real(drawn.subseed_strength);
  json.key("width").number(drawn.width).key("height").number(drawn.height);
  const image::Infotext first = generation::describe(drawn, first_seeds, can, version);
  std::string sampler, schedule;
  for (const image::InfotextItem& item : first.items) {
    if (item.key == "Sampler") sampler = item.value;
    if (item.key == "Schedule type") schedule = item.value;
  }
  json.key("sampler_name").string(sampler).key("cfg_scale").real(drawn.guidance_scale).key("steps").number(drawn.steps);
  json.key("batch_size").number(call.batch_size).key("restore_faces").boolean(false);
  json.key("face_restoration_model").null().key("sd_model_name").string(can.model_name).key("sd_model_hash");
  if (can.model_hash.empty()) {
    json.null();
  } else {
    json.string(can.model_hash);
  }
  json.key("sd_vae_name").null().key("sd_vae_hash").null();
  json.key("seed_resize_from_w").number(drawn.seed_resize_width > 0 ? drawn.seed_resize_width : -1);
  json.key("seed_resize_from_h").number(drawn.seed_resize_height > 0 ? drawn.seed_resize_height : -1);
  json.key("denoising_strength").null();
  json.key("extra_generation_params").begin_object();
  if (!schedule.empty()) json.key("Schedule type").string(schedule);
  json.end_object().key("index_of_first_image").number(0).key("infotexts").begin_array();
  for (const std::string& text : infotexts) json.string(text);
  json.end_array().key("styles").begin_array().end_array().key("job_timestamp").string(job_timestamp);
  json.key("clip_skip").number(std::max(1, drawn.clip_skip)).key("is_using_inpainting_conditioning").boolean(false);
  return json.key("version").string(version).end_object().take();
}

}  // namespace

Result<http::Response> render_txt2img(const Txt2ImgCall& call, const generation::GenerationResult& result,
                                      const generation::Capabilities& can, std::string_view version,
                                      std::string_view job_timestamp) {
  std::vector<std::string> infotexts, pictures;
  std::size_t bytes = call.parameters.size();
  for (const generation::GeneratedImage& each : result.images) {
    const auto seeds = generation::image_seeds(result.request, static_cast<int>(infotexts.size()));
    infotexts.push_back(image::format_infotext(generation::describe(result.request, seeds, can, version)));
    if (!call.send_images) continue;
    const std::vector<image::PngText> texts = {{kPngKeyword, infotexts.back()}};
    OCTAVO_ASSIGN_OR_RETURN(const std::vector<std::uint8_t> png, image::encode_png(each.image, texts));
    pictures.push_back(image::base64_encode(png));
    bytes += pictures.back().size() + infotexts.back().size();
  }
  // A1111 has one entry even when nothing was drawn.
  if (infotexts.empty()) {
    infotexts.push_back(image::format_infotext(
        generation::describe(result.request, generation::image_seeds(result.request, 0), can, version)));
  }
  JsonWriter json;
  json.reserve(bytes + 4096);
  json.begin_object().key("images").begin_array();
  for (const std::string& picture : pictures) json.raw("\"" + picture + "\"");
  json.end_array().key("parameters").raw(call.parameters);
  json.key("info").string(info_json(call, result, can, version, job_timestamp, infotexts)).end_object();
  http::Response response;
  response.body = json.take();
  return response;
}

http::Response render_job_error(const Status& error) {
  switch (error.code()) {
    case ErrorCode::kCancelled: {
      http::Response response = application_error(503, "HTTPException", "the call was cancelled by the server", "");
      response.headers.push_back({"Retry-After", "1"});
      return response;
    }
    case ErrorCode::kResourceExhausted:
      return application_error(500, "OutOfMemoryError", "", error.to_string());
    case ErrorCode::kDeadlineExceeded:
      return application_error(500, "TimeoutError", "", error.to_string());
    default:
      return application_error(500, "RuntimeError", "", error.to_string());
  }
}

}  // namespace octavo::api::a1111
