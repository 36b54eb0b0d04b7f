#include "api/a1111/txt2img_request.h"

#include <fmt/format.h>

#include <array>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <limits>
#include <vector>

#include "api/a1111/coercion.h"
#include "api/a1111/errors.h"
#include "api/a1111/json_body.h"
#include "api/a1111/samplers.h"
#include "api/json_writer.h"
#include "image/infotext.h"

namespace octavo::api::a1111 {
namespace {

namespace json = boost::json;

enum class Default { kNull, kFalse, kTrue, kEmptyString, kEmptyList, kEmptyObject, kNumber, kEuler, kModel };

struct Field {
  std::string_view name;
  FieldType type;
  Default fallback;
  double number = 0;     // for kNumber
  bool nullable = true;  // fields of A1111's processing class are; those the API adds are not
};

using enum FieldType;

// A1111 1.10's fields in the order in which its answer lists them.
constexpr Field kFields[] = {
    {"prompt", kString, Default::kEmptyString},
    {"negative_prompt", kString, Default::kEmptyString},
    {"styles", kStringList, Default::kNull},
    {"seed", kInteger, Default::kNumber, -1},
    {"subseed", kInteger, Default::kNumber, -1},
    {"subseed_strength", kFloat, Default::kNumber, 0},
    {"seed_resize_from_h", kInteger, Default::kNumber, -1},
    {"seed_resize_from_w", kInteger, Default::kNumber, -1},
    {"sampler_name", kString, Default::kNull},
    {"scheduler", kString, Default::kNull},
    {"batch_size", kInteger, Default::kNumber, 1},
    {"n_iter", kInteger, Default::kNumber, 1},
    {"steps", kInteger, Default::kModel},
    {"cfg_scale", kFloat, Default::kModel},
    {"width", kInteger, Default::kModel},
    {"height", kInteger, Default::kModel},
    {"restore_faces", kBool, Default::kNull},
    {"tiling", kBool, Default::kNull},
    {"do_not_save_samples", kBool, Default::kFalse},
    {"do_not_save_grid", kBool, Default::kFalse},
    {"eta", kFloat, Default::kNull},
    {"denoising_strength", kFloat, Default::kNull},
    {"s_min_uncond", kFloat, Default::kNull},
    {"s_churn", kFloat, Default::kNull},
    {"s_tmax", kFloat, Default::kNull},
    {"s_tmin", kFloat, Default::kNull},
    {"s_noise", kFloat, Default::kNull},
    {"override_settings", kObject, Default::kNull},
    {"override_settings_restore_afterwards", kBool, Default::kTrue},
    {"refiner_checkpoint", kString, Default::kNull},
    {"refiner_switch_at", kFloat, Default::kNull},
    {"disable_extra_networks", kBool, Default::kFalse},
    {"firstpass_image", kString, Default::kNull},
    {"comments", kObject, Default::kNull},
    {"enable_hr", kBool, Default::kFalse},
    {"firstphase_width", kInteger, Default::kNumber, 0},
    {"firstphase_height", kInteger, Default::kNumber, 0},
    {"hr_scale", kFloat, Default::kNumber, 2},
    {"hr_upscaler", kString, Default::kNull},
    {"hr_second_pass_steps", kInteger, Default::kNumber, 0},
    {"hr_resize_x", kInteger, Default::kNumber, 0},
    {"hr_resize_y", kInteger, Default::kNumber, 0},
    {"hr_checkpoint_name", kString, Default::kNull},
    {"hr_sampler_name", kString, Default::kNull},
    {"hr_scheduler", kString, Default::kNull},
    {"hr_prompt", kString, Default::kEmptyString},
    {"hr_negative_prompt", kString, Default::kEmptyString},
    {"force_task_id", kString, Default::kNull},
    {"sampler_index", kString, Default::kEuler, 0, false},
    {"script_name", kString, Default::kNull},
    {"script_args", kList, Default::kEmptyList, 0, false},
    {"send_images", kBool, Default::kTrue, 0, false},
    {"save_images", kBool, Default::kFalse, 0, false},
    {"alwayson_scripts", kObject, Default::kEmptyObject, 0, false},
    {"infotext", kString, Default::kNull},
};

double model_default(std::string_view field, const generation::Capabilities& can) {
  if (field == "steps") return can.default_steps;
  if (field == "cfg_scale") return can.default_guidance_scale;
  if (field == "width") return can.default_width;
  return can.default_height;
}

json::value default_value(const Field& field, const generation::Capabilities& can) {
  switch (field.fallback) {
    case Default::kNull:
      return nullptr;
    case Default::kFalse:
      return false;
    case Default::kTrue:
      return true;
    case Default::kEmptyString:
      return json::string();
    case Default::kEmptyList:
      return json::array();
    case Default::kEmptyObject:
      return json::object();
    case Default::kEuler:
      return json::string("Euler");
    case Default::kNumber:
    case Default::kModel:
      break;
  }
  const double number = field.fallback == Default::kModel ? model_default(field.name, can) : field.number;
  if (field.type == kInteger) return static_cast<std::int64_t>(number);
  return number;
}

/// The coerced fields, and what is wrong with them.
class Fields {
 public:
  Fields(const json::object& body, const generation::Capabilities& can) : can_(can) {
    values_.reserve(std::size(kFields));
    for (const Field& field : kFields) {
      const json::value* given = body.if_contains({field.name.data(), field.name.size()});
      json::value value = default_value(field, can);
      if (given != nullptr && given->is_null()) {
        value = nullptr;
        if (!field.nullable) refuse(field.name, "none is not an allowed value", "type_error.none.not_allowed");
      } else if (given != nullptr) {
        auto coerced = coerce(*given, field.type);
        if (const auto* error = std::get_if<CoercionError>(&coerced)) {
          refuse(field.name, error->message, error->type);
        } else {
          value = std::get<json::value>(std::move(coerced));
        }
      }
      values_.push_back(std::move(value));
    }
  }

  /// The value, or the default where null was given (or a value that was refused).
  std::int64_t integer(std::string_view name) const { return filled(name, json::kind::int64).get_int64(); }
  double number(std::string_view name) const { return filled(name, json::kind::double_).get_double(); }
  bool flag(std::string_view name) const {
    const json::value& value = values_[index_of(name)];
    return value.is_bool() && value.get_bool();
  }
  std::string text(std::string_view name) const {
    const json::value& value = values_[index_of(name)];
    return value.is_string() ? std::string(value.get_string()) : std::string();
  }
  const json::value& value(std::string_view name) const { return values_[index_of(name)]; }

  void refuse(std::string_view field, std::string message, std::string type, std::string context = {}) {
    errors_.push_back({{"body", std::string(field)}, std::move(message), std::move(type), std::move(context), {}});
  }

  /// The integer, refused when outside; then it is clamped, so that checks that use it go on.
  std::int64_t integer_in(std::string_view name, std::int64_t low, std::int64_t high) {
    return in_range(name, integer(name), integer(name), low, high);
  }
  double number_in(std::string_view name, double low, double high) {
    return in_range(name, number(name), number(name), low, high);
  }
  /// A side in pixels: floored to the model's multiple, then checked.
  int side(std::string_view name) {
    const std::int64_t multiple = can_.size_multiple;
    const std::int64_t asked = integer(name);
    return static_cast<int>(
        in_range(name, asked, asked - asked % multiple, std::int64_t{can_.min_size}, std::int64_t{can_.max_size}));
  }

  const std::vector<FieldError>& errors() const { return errors_; }

  std::string echo() const {
    JsonWriter writer;
    writer.begin_object();
    for (std::size_t i = 0; i < values_.size(); ++i) {
      writer.key(kFields[i].name);
      if (values_[i].is_double()) {
        writer.real(values_[i].get_double());
      } else {
        writer.raw(json::serialize(values_[i]));
      }
    }
    return writer.end_object().take();
  }

 private:
  static std::size_t index_of(std::string_view name) {
    for (std::size_t i = 0; i < std::size(kFields); ++i) {
      if (kFields[i].name == name) return i;
    }
    OCTAVO_CHECK(false, "{} is not a field of txt2img", name);
    return 0;
  }

  json::value filled(std::string_view name, json::kind kind) const {
    const std::size_t index = index_of(name);
    return values_[index].kind() == kind ? values_[index] : default_value(kFields[index], can_);
  }

  template <typename T>
  T in_range(std::string_view name, T asked, T value, T low, T high) {
    if (value < low) {
      refuse(name, fmt::format("ensure this value is greater than or equal to {} (got {})", low, asked),
             "value_error.number.not_ge", fmt::format("{{\"limit_value\":{}}}", low));
    } else if (value > high) {
      refuse(name, fmt::format("ensure this value is less than or equal to {} (got {})", high, asked),
             "value_error.number.not_le", fmt::format("{{\"limit_value\":{}}}", high));
    }
    return std::clamp(value, low, high);
  }

  const generation::Capabilities& can_;
  std::vector<json::value> values_;  // as kFields
  std::vector<FieldError> errors_;
};

/// Scripts change the picture in ways we do not have: A1111's answer for one it does not know.
std::optional<http::Response> refuse_scripts(const Fields& fields) {
  std::string name = fields.text("script_name");
  if (name.empty() || name == "None") {
    name.clear();
    const json::value& scripts = fields.value("alwayson_scripts");
    if (scripts.is_object() && !scripts.get_object().empty()) name = std::string(scripts.get_object().begin()->key());
  }
  if (name.empty()) return std::nullopt;
  return application_error(422, "HTTPException", fmt::format("Script '{}' not found", name), "");
}

void read_sampler(Fields& fields, const generation::Capabilities& can, generation::GenerationRequest& request) {
  const std::string_view field = fields.text("sampler_name").empty() ? "sampler_index" : "sampler_name";
  const std::string name = fields.text(field);
  const auto choice = choose_sampler(name, fields.text("scheduler"), can);
  if (!choice) {
    std::string offered;
    for (const generation::NamedChoice& each : can.samplers) offered += (offered.empty() ? "" : ", ") + each.label;
    fields.refuse(field, "Sampler not found; known are: " + offered, "value_error.sampler");
    return;
  }
  request.sampler = choice->sampler;
  request.schedule = choice->schedule;
}

/// The options of override_settings that change the picture; the others are for a model and files we do not have.
void read_overrides(Fields& fields, const generation::Capabilities& can, generation::GenerationRequest& request) {
  const json::value& settings = fields.value("override_settings");
  if (!settings.is_object()) return;
  const json::value* skip = settings.get_object().if_contains("CLIP_stop_at_last_layers");
  if (skip == nullptr || skip->is_null()) return;
  const auto coerced = coerce(*skip, kInteger);
  const auto* number = std::get_if<json::value>(&coerced);
  if (number == nullptr || number->get_int64() < 0 || number->get_int64() > can.max_clip_skip) {
    fields.refuse("override_settings",
                  fmt::format("CLIP_stop_at_last_layers must be an integer from 1 to {}", can.max_clip_skip),
                  "value_error");
    return;
  }
  request.clip_skip = static_cast<int>(number->get_int64());
}

/// A1111's seeds, and what scales the noise of samplers that add some. Null is the default, as everywhere.
void read_noise(Fields& fields, generation::GenerationRequest& request) {
  constexpr std::int64_t kLastSeed = std::numeric_limits<std::int64_t>::max() - generation::kMaxImageCount;
  request.seed = fields.integer_in("seed", -1, kLastSeed);
  request.subseed = fields.integer_in("subseed", -1, kLastSeed);
  request.subseed_strength = fields.number_in("subseed_strength", 0, 1);
  constexpr std::int64_t kLargestSide = 16384;
  const std::int64_t from_width = fields.integer_in("seed_resize_from_w", -1, kLargestSide);
  const std::int64_t from_height = fields.integer_in("seed_resize_from_h", -1, kLargestSide);
  if (from_width >= 8 && from_height >= 8) {  // A1111 ignores one alone
    request.seed_resize_width = static_cast<int>(from_width);
    request.seed_resize_height = static_cast<int>(from_height);
  }
  if (fields.value("eta").is_double()) request.eta = fields.number_in("eta", 0, 1);
  if (fields.value("s_noise").is_double()) request.s_noise = fields.number_in("s_noise", 0, 10);
  const json::value& settings = fields.value("override_settings");
  if (!settings.is_object()) return;
  const json::value* source = settings.get_object().if_contains("randn_source");
  if (source == nullptr || source->is_null()) return;
  // "GPU" asks for the numbers of the client's graphics card; NVIDIA's are the ones that can be drawn anywhere.
  const std::string_view name = source->is_string() ? std::string_view(source->get_string()) : std::string_view();
  if (name == "NV" || name == "GPU") {
    request.noise_source = "nv";
  } else if (name != "CPU") {
    fields.refuse("override_settings", "randn_source must be CPU, NV or GPU", "value_error.randn_source");
  }
}

/// GenerationRequest's names of what resolve() may still refuse, as the body spells them.
std::string body_field(const std::string& subject) {
  if (subject == "guidance_scale") return "cfg_scale";
  if (subject == "image_count") return "batch_size";
  if (subject == "clip_skip") return "override_settings";
  return subject;
}

Txt2ImgOrRefusal read_call(const json::object& body, const generation::Capabilities& can) {
  Fields fields(body, can);
  Txt2ImgCall call;
  generation::GenerationRequest& request = call.request;
  request.prompt = fields.text("prompt");
  request.negative_prompt = fields.text("negative_prompt");
  request.width = fields.side("width");
  request.height = fields.side("height");
  request.steps = static_cast<int>(fields.integer_in("steps", 1, can.max_steps));
  request.guidance_scale = fields.number_in("cfg_scale", 0.0, 100.0);
  call.batch_size = static_cast<int>(fields.integer_in("batch_size", 1, generation::kMaxImageCount));
  call.iterations = static_cast<int>(fields.integer_in("n_iter", 1, generation::kMaxImageCount));
  if (call.batch_size * call.iterations > generation::kMaxImageCount) {
    fields.refuse("n_iter",
                  fmt::format("batch_size * n_iter is {}; at most {} pictures are drawn in a call",
                              call.batch_size * call.iterations, generation::kMaxImageCount),
                  "value_error.number.not_le", fmt::format("{{\"limit_value\":{}}}", generation::kMaxImageCount));
  }
  read_noise(fields, request);
  request.keep_partial = true;
  call.send_images = fields.flag("send_images");
  read_sampler(fields, can, request);
  read_overrides(fields, can, request);
  if (fields.flag("enable_hr")) fields.refuse("enable_hr", "a second pass is not available", "value_error.unsupported");
  if (!fields.errors().empty()) return validation_response(fields.errors());
  if (auto refusal = refuse_scripts(fields)) return *std::move(refusal);

  request.image_count = call.batch_size * call.iterations;
  auto resolved = generation::resolve(request, can);
  if (!resolved.ok()) {
    fields.refuse(body_field(resolved.status().subject()), resolved.status().message(), "value_error");
    return validation_response(fields.errors());
  }
  request = *std::move(resolved);
  call.parameters = fields.echo();
  return call;
}

}  // namespace

Txt2ImgOrRefusal parse_txt2img(std::string_view text, const generation::Capabilities& can) {
  auto body = parse_json_object(text);
  if (const auto* error = std::get_if<FieldError>(&body)) return validation_response({*error});
  return read_call(std::get<json::object>(body), can);
}

Txt2ImgOrRefusal parse_txt2img(const http::Request& request, const generation::Capabilities& can) {
  auto body = parse_json_body(request);
  if (const auto* error = std::get_if<FieldError>(&body)) return validation_response({*error});
  return read_call(std::get<json::object>(body), can);
}

}  // namespace octavo::api::a1111
