#include "quantize/compare/baseline.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value_to.hpp>
#include <fstream>

#include "quantize/compare/report_json.h"

namespace octavo::quantize {
namespace {

namespace json = boost::json;
namespace fs = std::filesystem;

constexpr const char* kFile = "baseline.json";
constexpr const char* kFlag = "--baseline";

ComparedModel model_of(const json::value& value) {
  const auto text = [&value](const char* key) { return std::string(value.at(key).as_string()); };
  return {.path = text("model"),
          .name = text("name"),
          .hash = text("hash"),
          .precision = text("precision"),
          .arithmetic = text("arithmetic"),
          .weight_bytes = value.at("weight_bytes").to_number<std::size_t>(),
          .quantization = value.at("quantization")};
}

/// The same through text, so that numbers of a file compare equal to those that were written.
json::value as_read(const json::value& value) { return json::parse(json::serialize(value)); }

}  // namespace

json::object baseline_key(const Comparison& comparison, const ComparisonOptions& options) {
  json::object kernels;
  for (const auto& [op, row] : options.a.options.kernels) kernels[op] = row;
  const generation::GenerationRequest& request = comparison.request;
  return {{"program", options.tool},
          {"processor", comparison.processor},
          {"model", comparison.a.name},
          {"hash", comparison.a.hash},
          {"precision", comparison.a.precision},
          {"arithmetic", comparison.a.arithmetic},
          {"quantization", comparison.a.quantization},
          {"kernels", std::move(kernels)},
          {"prompts", comparison.prompts.hash},
          {"seeds", comparison.seeds},
          {"first seed", comparison.first_seed},
          {"steps", request.steps},
          {"guidance", request.guidance_scale},
          {"width", request.width},
          {"height", request.height},
          {"sampler", request.sampler},
          {"schedule", request.schedule},
          {"shift", request.shift}};
}

Result<std::optional<Baseline>> read_baseline(const fs::path& folder, const json::object& key) {
  const fs::path path = folder / kFile;
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::optional<Baseline>();
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  try {
    const json::value found = json::parse(text);
    for (const auto& [name, wanted] : key) {
      const json::value* has = found.at("key").as_object().if_contains(name);
      if (has != nullptr && *has == as_read(wanted)) continue;
      return failed_precondition(
          kFlag, fmt::format("{} was made with another {} ({} there, {} here): name another folder, or delete it",
                             folder.string(), std::string_view(name.data(), name.size()),
                             has == nullptr ? "nothing" : json::serialize(*has), json::serialize(wanted)));
    }
    return std::optional(Baseline{.floor_f32 = model_of(found.at("floor_f32")),
                                  .floor_bf16 = model_of(found.at("floor_bf16")),
                                  .f32_source = found.at("f32_is_a").as_bool() ? Run::kA : Run::kF32,
                                  .bf16_source = found.at("bf16_is_a").as_bool() ? Run::kA : Run::kBf16,
                                  .calls = found.at("calls").to_number<std::int64_t>()});
  } catch (const std::exception&) {  // Boost.JSON's word for a member that is missing or of another type
    return data_corruption(kFlag, path.string() + " is not a baseline of octavo compare");
  }
}

Status write_baseline(const fs::path& folder, const json::object& key, const Baseline& baseline) {
  const json::object whole{{"key", key},
                           {"floor_f32", to_json(baseline.floor_f32)},
                           {"floor_bf16", to_json(baseline.floor_bf16)},
                           {"f32_is_a", baseline.f32_source == Run::kA},
                           {"bf16_is_a", baseline.bf16_source == Run::kA},
                           {"calls", baseline.calls}};
  const fs::path partial = folder / (std::string(kFile) + ".partial");
  std::ofstream file(partial, std::ios::binary);
  file << json::serialize(whole) << '\n';
  file.close();
  std::error_code error;
  if (file.good()) fs::rename(partial, folder / kFile, error);
  if (!file.good() || error) return resource_exhausted(kFlag, (folder / kFile).string() + " cannot be written");
  return {};
}

}  // namespace octavo::quantize
