#include "quantize/calibrate.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "base/log.h"
#include "base/sha256.h"
#include "quantize/observer.h"

namespace octavo::quantize {
namespace {

constexpr const char* kTransformer = "transformer";

/// Each with its length before it: no two lists are one text.
std::string hash_of(const std::vector<PromptEntry>& prompts) {
  Sha256 hash;
  for (const PromptEntry& entry : prompts) {
    for (const std::string* text : {&entry.prompt, &entry.negative_prompt}) {
      hash.update(fmt::format("{}:", text->size()));
      hash.update(*text);
    }
  }
  return hash.finish_hex();
}

/// Of all that tokenizers have a say in: another vocabulary's ids are other inputs.
std::string hash_of_tokens(const pipeline::Pipeline& pipeline,
                           const std::vector<generation::GenerationRequest>& requests) {
  const pipeline::TextConditioner conditioner(pipeline.model());
  Sha256 hash;
  const auto add = [&](const text::WeightedIds& ids) {
    hash.update(fmt::format("{}:{};", ids.ids.size(), fmt::join(ids.ids, ",")));
  };
  for (const generation::GenerationRequest& request : requests) {
    for (const pipeline::TextTokens& branch : conditioner.tokenize(request)) {
      for (const text::WeightedIds& chunk : branch.clip_l) add(chunk);
      for (const text::WeightedIds& chunk : branch.clip_g) add(chunk);
      add(branch.t5);
    }
  }
  return hash.finish_hex();
}

/// What makes statistics of one calibration unfit for another; empty when nothing does.
std::string difference(const Statistics& stored, const Statistics& wanted) {
  const CalibrationRecord &a = stored.record, &b = wanted.record;
  if (a.model_hash != b.model_hash) return "another model";
  if (a.prompts_hash != b.prompts_hash) return "other prompts";
  if (a.tokens_hash != b.tokens_hash) return "other tokenizers";
  if (a.steps != b.steps) return fmt::format("{} steps instead of {}", a.steps, b.steps);
  if (a.seed != b.seed) return fmt::format("seed {} instead of {}", a.seed, b.seed);
  if (a.guidance_scale != b.guidance_scale || stored.branches != wanted.branches) {
    return fmt::format("guidance {} instead of {}", a.guidance_scale, b.guidance_scale);
  }
  if (a.shift != b.shift) return fmt::format("a schedule's shift of {} instead of {}", a.shift, b.shift);
  if (a.width != b.width || a.height != b.height) {
    return fmt::format("{} x {} pixels instead of {} x {}", a.width, a.height, b.width, b.height);
  }
  if (!(a == b)) return "another number of prompts, or another arithmetic";
  if (stored.inputs.size() != wanted.inputs.size()) return "other layers";
  for (std::size_t i = 0; i < stored.inputs.size(); ++i) {
    if (stored.inputs[i].layer != wanted.inputs[i].layer || stored.inputs[i].channels != wanted.inputs[i].channels) {
      return "other layers";
    }
  }
  return "";
}

/// Statistics to go on with: the file's, or empty ones.
Result<Statistics> start(const Statistics& empty, const std::filesystem::path& file) {
  if (file.empty() || !std::filesystem::exists(file)) return empty;
  OCTAVO_ASSIGN_OR_RETURN(Statistics stored, Statistics::load(file));
  const std::string other = difference(stored, empty);
  if (!other.empty()) {
    return failed_precondition(
        file.string(), "holds a calibration with " + other + ": delete it, or name another file with --calibration");
  }
  if (stored.finished_prompts < 0 || stored.finished_prompts > empty.record.prompts) {
    return data_corruption(file.string(), "says that more prompts are finished than there are");
  }
  return stored;
}

/// A refused request, by the flag that made it so.
Status of_flag(const Status& refused, std::size_t prompt) {
  if (refused.subject() == "steps") return invalid_argument("--steps", refused.message());
  if (refused.subject().ends_with("prompt")) {
    return invalid_argument("--prompts", fmt::format("prompt {}: {}", prompt, refused.message()));
  }
  return refused;
}

Status check_finite(const Statistics& statistics) {
  for (const InputStatistics& input : statistics.inputs) {
    for (const float amax : input.amax) {
      if (!std::isfinite(amax)) return data_corruption(input.layer, "has an input that is infinite or NaN");
    }
  }
  return {};
}

}  // namespace

Result<Statistics> calibrate(pipeline::Pipeline& pipeline, const std::vector<Site>& sites,
                             const CalibrationOptions& options, const CalibrationControl& control) {
  if (options.prompts.empty()) return invalid_argument("--prompts", "holds no prompt");
  if (options.prompts.size() == 1) {
    spdlog::warn("calibration on one prompt: its ranges need not be those of others; some 60 varied ones are usual");
  }
  // Every request is checked before the first one runs.
  std::vector<generation::GenerationRequest> requests;
  for (const PromptEntry& entry : options.prompts) {
    generation::GenerationRequest request;
    request.prompt = entry.prompt;
    request.negative_prompt = entry.negative_prompt;
    request.prompt_syntax = "plain";
    request.steps = options.steps;
    request.seed = options.seed + static_cast<std::int64_t>(requests.size());
    request.guidance_scale = options.guidance_scale;
    request.width = options.width;
    request.height = options.height;
    request.sampler = "euler";  // one forward a step
    auto resolved = generation::resolve(std::move(request), pipeline.capabilities());
    if (!resolved.ok()) return of_flag(resolved.status(), requests.size() + 1);
    requests.push_back(std::move(*resolved));
  }
  OCTAVO_ASSIGN_OR_RETURN(const pipeline::DenoiseState first, pipeline.begin(requests.front(), 0));
  const bool guided = requests.front().guidance_scale > 1;
  const CalibrationRecord record{.prompts_hash = hash_of(options.prompts),
                                 .tokens_hash = hash_of_tokens(pipeline, requests),
                                 .prompts = static_cast<std::int64_t>(requests.size()),
                                 .steps = first.sampler.steps(),
                                 .seed = options.seed,
                                 .width = requests.front().width,
                                 .height = requests.front().height,
                                 .guidance_scale = requests.front().guidance_scale,
                                 .shift = pipeline.model().flow.shift,
                                 .arithmetic = std::string(dtype_name(pipeline.activation_dtype())),
                                 .model_hash = options.model_hash};
  OCTAVO_ASSIGN_OR_RETURN(Statistics statistics, start(Statistics::empty(record, guided ? 2 : 1, sites), options.file));
  const std::int64_t resumed = statistics.finished_prompts;
  if (resumed > 0) spdlog::info("{} of {} prompts are in {} already", resumed, record.prompts, options.file.string());

  Observer observer(kTransformer, pipeline.traits(), sites, statistics);
  struct Listening {
    Listening(pipeline::Pipeline& to, device::TapSink* sink) : pipeline(to) { pipeline.set_tap(sink); }
    ~Listening() { pipeline.set_tap(nullptr); }
    pipeline::Pipeline& pipeline;
  };
  const Listening listening(pipeline, &observer);
  for (std::int64_t prompt = resumed; prompt < record.prompts; ++prompt) {
    observer.begin_prompt(prompt);
    OCTAVO_ASSIGN_OR_RETURN(pipeline::DenoiseState state,
                            pipeline.begin(requests[static_cast<std::size_t>(prompt)], 0));
    const auto report = [&](const generation::Progress& progress) {
      if (!control.on_progress) return;
      control.on_progress({prompt, record.prompts, progress.step, record.steps, resumed});
    };
    const Status status =
        pipeline.advance(state, state.sampler.steps(), {.on_progress = report, .cancel = control.cancel});
    if (status.code() == ErrorCode::kCancelled) {
      return cancelled(fmt::format("calibration stopped after {} of {} prompts{}", prompt, record.prompts,
                                   options.file.empty() ? "" : "; the same command goes on from there"));
    }
    OCTAVO_RETURN_IF_ERROR(status);
    OCTAVO_RETURN_IF_ERROR(check_finite(statistics));
    OCTAVO_CHECK(observer.finished_steps() == record.steps, "{} forwards in {} steps", observer.finished_steps(),
                 record.steps);
    statistics.finished_prompts = prompt + 1;
    if (!options.file.empty()) OCTAVO_RETURN_IF_ERROR(statistics.save(options.file));
  }
  return statistics;
}

}  // namespace octavo::quantize
