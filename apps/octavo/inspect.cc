#include "inspect.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>

#include "checkpoint_report.h"
#include "model_path.h"
#include "picture_report.h"

namespace octavo::app {
namespace {

struct InspectOptions {
  std::string path;
  bool json = false;
  bool tensors = false;
  bool skip_values = false;
};

std::string scaled(double value, double step, std::initializer_list<const char*> units) {
  const char* const* unit = units.begin();
  for (; value >= step && unit + 1 != units.end(); ++unit) value /= step;
  return fmt::format("{:.{}f} {}", value, unit == units.begin() ? 0 : 1, *unit);
}

std::string bytes_in_words(std::size_t bytes) {
  return scaled(static_cast<double>(bytes), 1024, {"B", "KiB", "MiB", "GiB"});
}

std::string count_in_words(std::int64_t count) { return scaled(static_cast<double>(count), 1000, {"", "K", "M", "G"}); }

std::string dtypes_in_words(const PartReport& part) {
  std::string text;
  const auto counts = part.tensors_by_dtype();
  for (const auto& [dtype, count] : counts) {
    text += (text.empty() ? "" : ", ") + dtype;
    if (counts.size() > 1) text += fmt::format(" ({})", count);
  }
  return text;
}

void line(const std::string& text) {
  std::string trimmed = printable(text);
  trimmed.erase(trimmed.find_last_not_of(' ') + 1);
  std::cout << trimmed << '\n';
}

void print_text(const CheckpointReport& report, bool tensors) {
  std::string title = report.path.string() + ": " + report.layout;
  if (!report.model.empty()) title += ", " + report.model;
  line(title);
  std::size_t name_width = 5, class_width = 5, bytes = 0;
  std::int64_t parameters = 0;
  for (const PartReport& part : report.parts) {
    name_width = std::max(name_width, part.name.size());
    class_width = std::max(class_width, part.class_name.size());
    bytes += part.byte_count();
    parameters += part.parameter_count();
  }
  const auto row = [&](const std::string& name, const std::string& type, const std::string& files,
                       const std::string& count, const std::string& size, const std::string& disk,
                       const std::string& dtypes) {
    line(fmt::format("  {:<{}}  {:<{}}  {:>5}  {:>7}  {:>10}  {:>10}  {}", name, name_width, type, class_width, files,
                     count, size, disk, dtypes));
  };
  line("");
  row("part", "class", "files", "tensors", "parameters", "size", "stored as");
  for (const PartReport& part : report.parts) {
    const bool model = !part.tensors.empty();
    row(part.name, part.class_name, fmt::to_string(part.files.size()), model ? fmt::to_string(part.tensors.size()) : "",
        model ? count_in_words(part.parameter_count()) : "", model ? bytes_in_words(part.byte_count()) : "",
        dtypes_in_words(part));
    if (!part.description.empty()) line(std::string(name_width + 4, ' ') + part.description);
    if (part.quantization) {
      line(fmt::format("{:{}}quantised: {} layers in 8 bits, {}", "", name_width + 4, part.quantized_layers,
                       part.quantization->in_words()));
    }
    if (!tensors) continue;
    for (const TensorReport& tensor : part.tensors) {
      line(fmt::format("      {:<8} {:<24} {}", tensor.dtype, tensor.shape.to_string(), tensor.name));
    }
  }
  row("total", "", "", "", count_in_words(parameters), bytes_in_words(bytes), "");
  line("");
  for (const std::string& note : report.notes) line("note: " + note);
  for (const std::string& problem : report.problems) line("problem: " + problem);
  line(report.problems.empty()
           ? "nothing wrong found"
           : fmt::format("{} problem{}", report.problems.size(), report.problems.size() == 1 ? "" : "s"));
}

void print_json(const CheckpointReport& report, bool tensors) {
  boost::json::array parts;
  for (const PartReport& part : report.parts) {
    boost::json::object dtypes;
    for (const auto& [dtype, count] : part.tensors_by_dtype()) dtypes[dtype] = count;
    boost::json::object entry{{"name", part.name},
                              {"class", part.class_name},
                              {"description", part.description},
                              {"files", boost::json::value_from(part.files)},
                              {"tensor_count", part.tensors.size()},
                              {"parameter_count", part.parameter_count()},
                              {"byte_count", part.byte_count()},
                              {"tensors_by_dtype", std::move(dtypes)}};
    if (part.quantization) {
      boost::json::object told = boost::json::parse(weights::provenance_text(*part.quantization)).get_object();
      told["layer_count"] = part.quantized_layers;
      entry["quantization"] = std::move(told);
    }
    if (tensors) {
      boost::json::array rows;
      for (const TensorReport& tensor : part.tensors) {
        boost::json::array shape;
        for (int axis = 0; axis < tensor.shape.rank(); ++axis) shape.emplace_back(tensor.shape[axis]);
        rows.push_back({{"name", tensor.name}, {"dtype", tensor.dtype}, {"shape", std::move(shape)}});
      }
      entry["tensors"] = std::move(rows);
    }
    parts.push_back(std::move(entry));
  }
  const boost::json::object whole{{"path", report.path.string()},
                                  {"layout", report.layout},
                                  {"model", report.model},
                                  {"parts", std::move(parts)},
                                  {"problems", boost::json::value_from(report.problems)},
                                  {"notes", boost::json::value_from(report.notes)}};
  std::cout << boost::json::serialize(whole) << '\n';
}

int run_inspect(const InspectOptions& options) {
  if (is_picture(options.path)) return report_picture(options.path, options.json);
  const auto path = find_model(options.path);
  const auto report =
      path.ok() ? inspect_checkpoint(*path, !options.skip_values) : Result<CheckpointReport>(path.status());
  if (!report.ok()) {
    std::fprintf(stderr, "octavo inspect: %s\n", printable(report.status().to_string()).c_str());
    return 2;
  }
  if (options.json) {
    print_json(*report, options.tensors);
  } else {
    print_text(*report, options.tensors);
  }
  return report->problems.empty() ? 0 : 1;
}

}  // namespace

void add_inspect(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* inspect =
      app.add_subcommand("inspect", "Say what a checkpoint is and what is wrong with it, or how a picture was made");
  inspect->add_option(
      "path", options->path,
      "Diffusers folder, .safetensors file or folder of such files (default: the embedded octavo-tiny); or a PNG, JPEG "
      "or WebP");
  inspect->add_flag("--json", options->json, "Print JSON");
  inspect->add_flag("--tensors", options->tensors, "List every tensor");
  inspect->add_flag("--skip-values", options->skip_values, "Do not read the values (NaN and infinity are not found)");
  inspect->footer(
      "Exit status: 0 nothing wrong found, 1 something is wrong, 2 the path holds neither checkpoint nor picture.");
  inspect->callback([options, &exit_code] { exit_code = run_inspect(*options); });
}

}  // namespace octavo::app
