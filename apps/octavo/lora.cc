#include "lora.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "base/sha256.h"
#include "base/utf8.h"
#include "model_path.h"
#include "version.h"
#include "weights/lora/merged_source.h"
#include "write_checkpoint.h"
#include "write_quantized.h"

namespace octavo::app {
namespace {

struct MergeOptions {
  SourceFlags source;
  std::vector<std::string> loras;
  std::string dtype;
  bool quantize = false;
  QuantizeFlags flags;
  std::string tokenizers;
  std::string out;
};

/// "FILE:0.8"; without a number behind the last colon the strength is 1.
weights::LoraStrength parse_lora(const std::string& text) {
  const auto colon = text.rfind(':');
  float strength = 1.0f;
  if (colon != std::string::npos) {
    const char* begin = text.data() + colon + 1;
    const char* end = text.data() + text.size();
    const auto [read, error] = std::from_chars(begin, end, strength);
    if (error == std::errc() && read == end && begin != end) return {text.substr(0, colon), strength};
  }
  return {text, 1.0f};
}

Result<std::string> digest_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  Sha256 digest;
  std::vector<char> buffer(1 << 20);
  while (file.read(buffer.data(), static_cast<std::streamsize>(buffer.size())) || file.gcount() > 0) {
    digest.update(std::string_view(buffer.data(), static_cast<std::size_t>(file.gcount())));
  }
  if (!file.eof()) return failed_precondition(path.string(), "cannot be read");
  return digest.finish_hex();
}

/// Codes of 8 bits would be rounded a second time, after which most of a LoRA, smaller than their step, is gone.
Status say_what_to_merge_into(const Status& status) {
  if (status.code() != ErrorCode::kFailedPrecondition) return status;
  return failed_precondition(status.subject(),
                             status.message() + ": merge the LoRA into those; --quantize makes 8 bits of the result");
}

/// "<file> <strength> <sha256>" of each, in order.
Result<std::vector<std::string>> records_of(const std::vector<weights::LoraStrength>& loras) {
  std::vector<std::string> records;
  for (const weights::LoraStrength& lora : loras) {
    OCTAVO_ASSIGN_OR_RETURN(const std::string digest, digest_file(lora.path));
    records.push_back(fmt::format("{} {} {}", printable(lora.path.filename().string()), lora.strength, digest));
  }
  return records;
}

Status run_merge(const MergeOptions& options, bool quantize_flags_given) {
  if (quantize_flags_given && !options.quantize) {
    return invalid_argument("--quantize", "is missing: without it the result has 16 bits and no form to choose");
  }
  OCTAVO_ASSIGN_OR_RETURN(const auto dtype, parse_checkpoint_dtype(options.dtype));
  if (dtype && dtype_size(*dtype) < 2) {
    return invalid_argument("--dtype", "has no scales for fp8: use --quantize");
  }
  if (dtype && options.quantize) return invalid_argument("--dtype", "is for what is not quantised");
  for (const auto& [flag, word, needs] : {std::tuple("--policy", &options.flags.policy, "auto"),
                                          std::tuple("--activations", &options.flags.activations, "static")}) {
    if (*word != needs) continue;
    return invalid_argument(flag, fmt::format("{} needs a calibration, which runs the model: merge without --quantize "
                                              "first, then quantise the result",
                                              needs));
  }
  const auto opened = open_source(options.source);
  if (!opened.ok()) return say_what_to_merge_into(opened.status());
  const weights::CheckpointSource& base = **opened;
  OCTAVO_RETURN_IF_ERROR(say_what_to_merge_into(quantize::check_not_quantized(base.parts(), options.source.model)));
  std::vector<weights::LoraStrength> loras;
  for (const std::string& text : options.loras) loras.push_back(parse_lora(text));
  OCTAVO_ASSIGN_OR_RETURN(const auto merged, weights::MergedSource::create(base, loras));
  OCTAVO_RETURN_IF_ERROR(weights::check_destination(options.out));
  OCTAVO_ASSIGN_OR_RETURN(const FolderExtras extras,
                          folder_extras(base, options.source.model, options.tokenizers, "diffusers"));
  OCTAVO_ASSIGN_OR_RETURN(const auto records, records_of(loras));
  std::printf("%zu weights changed by %zu LoRA%s\n", merged->changed_count(), loras.size(),
              loras.size() == 1 ? "" : "s");

  if (options.quantize) {
    OCTAVO_ASSIGN_OR_RETURN(const quantize::Recipe recipe, recipe_of_flags(*merged, options.flags));
    if (const quantize::LayerRecipe* layer = recipe.find_static()) {
      return invalid_argument(layer->layer,
                              "has static activations by the policy, which need a calibration, which runs the model: "
                              "merge without --quantize first, then quantise the result");
    }
    QuantizedWriting writing{.original = &base, .values = merged.get(), .recipe = &recipe};
    writing.quantize_t5 = options.flags.t5_precision == "fp8";
    writing.source = {.model = name_of_model(options.source.model), .loras = records};
    OCTAVO_ASSIGN_OR_RETURN(writing.source.hash, digest_with_progress(base));
    return write_quantized(writing, options.out, extras);
  }
  weights::ExportOptions exported{.dtype = dtype};
  std::string told = fmt::format("octavo {} lora merge", kVersion);
  for (const std::string& record : records) told += "; " + record;
  exported.metadata = {{"octavo.merged", told}};
  OCTAVO_ASSIGN_OR_RETURN(weights::ExportPlan plan, weights::plan_export(merged->parts(), exported));
  plan.check_finite = true;  // a strength can lift a weight over what its type holds
  return write_planned(*merged, std::move(plan), exported.layout, options.out, extras);
}

void add_merge(CLI::App& lora, int& exit_code) {
  auto options = std::make_shared<MergeOptions>();
  CLI::App* merge = lora.add_subcommand("merge", "Add LoRAs to the weights of a 16-bit model");
  add_source_flags(*merge, options->source);
  merge
      ->add_option("--lora", options->loras,
                   "FILE or FILE:STRENGTH, as often as there are LoRAs (diffusers, peft, kohya, OneTrainer names)")
      ->required()
      ->allow_extra_args(false);
  merge->add_option("--dtype", options->dtype, "f32, f16 or bf16 for every tensor (default: each as it is)");
  merge->add_flag("--quantize", options->quantize, "Write 8-bit weights, as octavo quantize does, of the merged ones");
  add_quantize_flags(*merge, options->flags);
  merge->add_option("--tokenizers", options->tokenizers,
                    "Folder with tokenizer, tokenizer_2, tokenizer_3 to copy (default: the model's own)");
  merge->add_option("-o,--out", options->out, "Diffusers folder to write")->required();
  merge->footer(
      "Weights and updates are added in f32 and rounded once. What --quantize writes is rounded from those sums; to "
      "calibrate, merge first and quantise the result. Every key of a LoRA must have its place in the model.");
  merge->callback([options, merge, &exit_code] {
    bool quantize_flags_given = false;
    for (const char* flag :
         {"--format", "--activation-format", "--weights", "--activations", "--policy", "--t5-precision"}) {
      quantize_flags_given = quantize_flags_given || merge->count(flag) > 0;
    }
    const Status status = run_merge(*options, quantize_flags_given);
    if (!status.ok()) {
      std::fprintf(stderr, "octavo lora merge: %s\n", status.to_string().c_str());
      exit_code = 1;
    }
  });
}

}  // namespace

void add_lora(CLI::App& app, int& exit_code) {
  CLI::App* lora = app.add_subcommand("lora", "Low-rank updates of a model's weights");
  lora->require_subcommand(1);
  add_merge(*lora, exit_code);
}

}  // namespace octavo::app
