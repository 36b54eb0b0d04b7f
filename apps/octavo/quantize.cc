#include "quantize.h"

#include <cstdio>
#include <memory>
#include <string>

#include "version.h"
#include "write_checkpoint.h"

namespace octavo::app {
namespace {

struct QuantizeOptions {
  SourceFlags source;
  std::string layout = "comfyui";
  std::string scaled = "new";
  std::string out;
};

/// FP8 from FP8 would round twice, and with other scales.
Status check_not_quantised(const weights::CheckpointSource& source, const std::string& model) {
  for (const weights::SourcePart& part : source.parts()) {
    for (const weights::SourceTensor& tensor : part.tensors) {
      if (!weights::is_scaled_layer(part.part, tensor) || dtype_size(tensor.dtype) > 1) continue;
      return failed_precondition(model, fmt::format("is quantised already ({} is {}); start from the 16-bit weights",
                                                    tensor.name, dtype_name(tensor.dtype)));
    }
  }
  return {};
}

Status run_quantize(const QuantizeOptions& options) {
  if (options.layout != "comfyui") {
    return invalid_argument("--layout", "'" + options.layout + "' is not comfyui, the only quantised form so far");
  }
  weights::ExportOptions exported{.layout = weights::CheckpointLayout::kComfyUi};
  if (options.scaled == "new") {
    exported.scaled = weights::ScaledFp8::kNew;
  } else if (options.scaled == "old") {
    exported.scaled = weights::ScaledFp8::kOld;
  } else {
    return invalid_argument("--scaled", "'" + options.scaled + "' is neither new nor old");
  }
  OCTAVO_ASSIGN_OR_RETURN(const auto source, open_source(options.source));
  if (!source->has_part(weights::Part::kTransformer) && !source->has_part(weights::Part::kTextEncoder3)) {
    return invalid_argument(options.source.model, "has neither a transformer nor a T5, whose weights become FP8");
  }
  OCTAVO_RETURN_IF_ERROR(check_not_quantised(*source, options.source.model));
  exported.metadata = {{"octavo.quantised", fmt::format("octavo {} quantize --layout comfyui --scaled {}: e4m3, one "
                                                        "scale a weight, largest magnitude / 448",
                                                        kVersion, options.scaled)}};
  return write_checkpoint(*source, exported, options.out, {});
}

}  // namespace

void add_quantize(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<QuantizeOptions>();
  CLI::App* quantize = app.add_subcommand("quantize", "Turn 16-bit weights into FP8");
  add_source_flags(*quantize, options->source);
  quantize->add_option("--layout", options->layout, "comfyui: one file with scaled FP8, as ComfyUI reads it")
      ->capture_default_str();
  quantize
      ->add_option("--scaled", options->scaled,
                   "new: weight_scale and comfy_quant (ComfyUI since late 2025); old: scale_weight and scaled_fp8")
      ->capture_default_str();
  quantize->add_option("-o,--out", options->out, "File to write")->required();
  quantize->footer(
      "The weights of the linear layers of the transformer and of T5 become E4M3 with one scale each, the largest "
      "magnitude / 448; all else keeps its 16 bits (f32 becomes bf16).");
  quantize->callback([options, &exit_code] {
    const Status status = run_quantize(*options);
    if (!status.ok()) {
      std::fprintf(stderr, "octavo quantize: %s\n", status.to_string().c_str());
      exit_code = 1;
    }
  });
}

}  // namespace octavo::app
