#include "quantize/compare/report_json.h"

#include <boost/json/serialize.hpp>
#include <cmath>

namespace octavo::quantize {
namespace {

namespace json = boost::json;

json::value number(double value) { return std::isfinite(value) ? json::value(value) : json::value(); }

json::object to_json(const Spread& spread) {
  return {{"mean", number(spread.mean)},
          {"worst", number(spread.worst)},
          {"identical", spread.identical},
          {"count", spread.count}};
}

json::object to_json(const VectorError& error) {
  return {
      {"sqnr_db", number(error.sqnr_db)}, {"cosine", number(error.cosine)}, {"relative_l2", number(error.relative_l2)}};
}

json::object to_json(const PictureErrors& errors) {
  json::array velocity;
  for (const CallError& call : errors.velocity) {
    json::object row{{"step", call.step}, {"sigma", call.sigma}};
    for (auto& member : to_json(call.error)) row.insert(std::move(member));
    velocity.push_back(std::move(row));
  }
  return {{"psnr_db", number(errors.psnr_db)},
          {"ssim", number(errors.ssim)},
          {"perceptual", number(errors.perceptual)},
          {"latents", to_json(errors.latents)},
          {"velocity", std::move(velocity)}};
}

json::object summary_json(const Comparison& comparison, PictureErrors ComparedPicture::*which) {
  json::object out;
  for (const Figure& figure : figures()) out[figure.key] = to_json(summary(comparison, figure, which));
  return out;
}

json::object to_json(const CallSummary& call) {
  return {
      {"sqnr_db", to_json(call.sqnr_db)}, {"cosine", to_json(call.cosine)}, {"relative_l2", to_json(call.relative_l2)}};
}

}  // namespace

json::object to_json(const ComparedModel& model) {
  return {{"model", model.path},
          {"name", model.name},
          {"hash", model.hash},
          {"precision", model.precision},
          {"arithmetic", model.arithmetic},
          {"weight_bytes", model.weight_bytes},
          {"quantization", model.quantization}};
}

std::vector<CallSummary> call_summaries(const Comparison& comparison, PictureErrors ComparedPicture::*which) {
  std::vector<CallSummary> out;
  const std::vector<CallError>& first = (comparison.pictures.front().*which).velocity;
  for (std::size_t call = 0; call < first.size(); ++call) {
    std::vector<double> sqnr, cosine, l2;
    for (const ComparedPicture& picture : comparison.pictures) {
      const VectorError& error = (picture.*which).velocity[call].error;
      sqnr.push_back(error.sqnr_db);
      cosine.push_back(error.cosine);
      l2.push_back(error.relative_l2);
    }
    out.push_back({first[call].step, first[call].sigma, spread_of(sqnr, Better::kHigher),
                   spread_of(cosine, Better::kHigher), spread_of(l2, Better::kLower)});
  }
  return out;
}

json::object report_json(const Comparison& comparison, const std::string& tool, const json::value& accuracy) {
  const generation::GenerationRequest& request = comparison.request;
  json::array steps, pictures;
  const auto ab = call_summaries(comparison, &ComparedPicture::ab);
  const auto floor = call_summaries(comparison, &ComparedPicture::floor);
  for (std::size_t i = 0; i < ab.size(); ++i) {
    steps.push_back(
        {{"step", ab[i].step}, {"sigma", ab[i].sigma}, {"ab", to_json(ab[i])}, {"floor", to_json(floor[i])}});
  }
  for (const ComparedPicture& picture : comparison.pictures) {
    const PromptEntry& entry = comparison.prompts.entries[picture.prompt];
    pictures.push_back({{"prompt_index", picture.prompt},
                        {"prompt", entry.prompt},
                        {"negative_prompt", entry.negative_prompt},
                        {"seed", picture.seed},
                        {"ab", to_json(picture.ab)},
                        {"floor", to_json(picture.floor)}});
  }
  return {{"format_version", kReportFormatVersion},
          {"tool", tool},
          {"a", to_json(comparison.a)},
          {"b", to_json(comparison.b)},
          {"floor", {{"a", to_json(comparison.floor_f32)}, {"b", to_json(comparison.floor_bf16)}}},
          {"machine",
           {{"processor", comparison.processor},
            {"threads", comparison.threads},
            {"bf16", comparison.native_bf16 ? "native" : "by rounding"}}},
          {"settings",
           {{"prompts_file", comparison.prompts_path},
            {"prompts_hash", comparison.prompts.hash},
            {"prompts", comparison.prompts.entries.size()},
            {"seeds", comparison.seeds},
            {"first_seed", comparison.first_seed},
            {"steps", request.steps},
            {"guidance_scale", request.guidance_scale},
            {"width", request.width},
            {"height", request.height},
            {"sampler", request.sampler},
            {"schedule", request.schedule},
            {"shift", request.shift}}},
          {"summary",
           {{"ab", summary_json(comparison, &ComparedPicture::ab)},
            {"floor", summary_json(comparison, &ComparedPicture::floor)}}},
          {"accuracy", accuracy},
          {"steps", std::move(steps)},
          {"pictures", std::move(pictures)}};
}

std::string report_text(const json::object& report) {
  std::string out = "{\n";
  std::size_t left = report.size();
  for (const auto& [key, value] : report) {
    out += json::serialize(json::string(key)) + ": ";
    if (value.is_array() && !value.get_array().empty()) {
      out += "[\n";
      std::size_t rows = value.get_array().size();
      for (const json::value& row : value.get_array()) out += json::serialize(row) + (--rows > 0 ? ",\n" : "\n");
      out += "]";
    } else {
      out += json::serialize(value);
    }
    out += --left > 0 ? ",\n" : "\n";
  }
  return out + "}\n";
}

}  // namespace octavo::quantize
