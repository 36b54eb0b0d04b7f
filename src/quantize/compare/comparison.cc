#include "quantize/compare/comparison.h"

#include <algorithm>
#include <boost/json/parse.hpp>
#include <cmath>
#include <fstream>
#include <limits>
#include <optional>

#include "base/log.h"
#include "base/utf8.h"
#include "device/device.h"
#include "quantize/compare/baseline.h"
#include "quantize/compare/perceptual_distance.h"
#include "quantize/compare/picture_error.h"
#include "quantize/compare/run_files.h"
#include "sampling/sampler.h"

namespace octavo::quantize {
namespace {

namespace fs = std::filesystem;
using pipeline::Pipeline;

const char* folder_of(Run run) {
  switch (run) {
    case Run::kA:
      return "a";
    case Run::kF32:
      return "f32";
    case Run::kBf16:
      return "bf16";
    case Run::kB:
      return "b";
  }
  return "";
}

fs::path file_of(const fs::path& work, Run run, std::size_t index, const char* kind) {
  return work / folder_of(run) / (std::to_string(index) + kind);
}

Status of_flag(const std::string& flag, const Status& status) {
  if (status.code() == ErrorCode::kCancelled) return status;
  return Status(status.code(), status.to_string(), flag);
}

bool same_files(const weights::ModelFiles& a, const weights::ModelFiles& b) {
  const auto same = [](const fs::path& x, const fs::path& y) {
    std::error_code error;
    return x == y || (!x.empty() && !y.empty() && fs::equivalent(x, y, error));
  };
  return same(a.model, b.model) && same(a.clip_l, b.clip_l) && same(a.clip_g, b.clip_g) && same(a.t5, b.t5) &&
         same(a.vae, b.vae) && same(a.tokenizers, b.tokenizers) && a.without_t5 == b.without_t5 && a.family == b.family;
}

/// The writer's record beside the weights; null when there is none that can be read.
boost::json::value quantization_of(const fs::path& model) {
  std::ifstream file(model / "transformer/quantization.json", std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  boost::json::error_code error;
  boost::json::value value = boost::json::parse(text, error);
  return error ? boost::json::value() : value;
}

ComparedModel describe(const ModelChoice& choice, const Pipeline& pipe) {
  return {.path = printable(choice.files.model.string()),
          .name = printable(pipe.capabilities().model_name),
          .hash = pipe.capabilities().model_hash,
          .precision = choice.precision,
          .arithmetic = pipe.arithmetic(),
          .weight_bytes = pipe.model().weight_bytes,
          .quantization = quantization_of(choice.files.model)};
}

class Comparer {
 public:
  Comparer(const ComparisonOptions& options, const ComparisonControl& control) : options_(options), control_(control) {
    result_.prompts = options.prompts;
    result_.prompts_path = printable(options.prompts_path);
    result_.seeds = options.seeds;
    result_.first_seed = options.first_seed;
    result_.work = options.work;
    result_.baseline = options.baseline.empty() ? options.work : options.baseline;
    for (std::size_t prompt = 0; prompt < options.prompts.entries.size(); ++prompt) {
      const std::int64_t first = options.prompts.entries[prompt].seed.value_or(options.first_seed);
      for (int i = 0; i < options.seeds; ++i) result_.pictures.push_back({prompt, first + i, {}, {}});
    }
  }

  Result<Comparison> compare() {
    for (const Run run : {Run::kA, Run::kF32, Run::kBf16, Run::kB}) {
      std::error_code error;
      const fs::path folder = root_of(run) / folder_of(run);
      fs::create_directories(folder, error);
      if (error) return resource_exhausted(folder.string(), "cannot be made: " + error.message());
    }
    OCTAVO_ASSIGN_OR_RETURN(const bool known, run_a());
    if (!known) {
      OCTAVO_RETURN_IF_ERROR(run_floor(Run::kF32, pipeline::LoadOptions::Precision::kF32, "f32", result_.floor_f32));
      OCTAVO_RETURN_IF_ERROR(
          run_floor(Run::kBf16, pipeline::LoadOptions::Precision::kBf16, "bf16", result_.floor_bf16));
      if (!options_.baseline.empty()) OCTAVO_RETURN_IF_ERROR(keep_baseline());
    }
    const bool f32_is_a = result_.source(Run::kF32) == Run::kA, bf16_is_a = result_.source(Run::kBf16) == Run::kA;
    if (f32_is_a) other_end_ = Run::kBf16;
    if (bf16_is_a) other_end_ = Run::kF32;
    OCTAVO_RETURN_IF_ERROR(run_b());
    OCTAVO_RETURN_IF_ERROR(compare_ends());
    return std::move(result_);
  }

 private:
  const fs::path& root_of(Run run) const { return run == Run::kB ? result_.work : result_.baseline; }
  fs::path file_of(Run run, std::size_t index, const char* kind) const {
    return quantize::file_of(root_of(run), run, index, kind);
  }

  /// True when a baseline had all that A and the floor would give.
  Result<bool> run_a() {
    OCTAVO_ASSIGN_OR_RETURN(const auto pipe, load(options_.a, options_.a.flag));
    result_.a = describe(options_.a, *pipe);
    const device::DeviceTraits& traits = pipe->traits();
    result_.processor = traits.name;
    result_.threads = traits.thread_count;
    result_.native_bf16 = traits.has_avx512_bf16 || traits.kind == device::DeviceKind::kCuda;
    generation::GenerationRequest request = options_.request;
    request.seed = request.subseed = options_.first_seed;
    if (request.shift <= 0) request.shift = pipe->model().flow.shift;  // both models walk the same noise levels
    OCTAVO_ASSIGN_OR_RETURN(result_.request, generation::resolve(request, pipe->capabilities()));
    if (!options_.baseline.empty()) {
      OCTAVO_ASSIGN_OR_RETURN(const auto found, read_baseline(options_.baseline, baseline_key(result_, options_)));
      if (found) {
        OCTAVO_RETURN_IF_ERROR(take_baseline(*found));
        return true;
      }
    }
    OCTAVO_RETURN_IF_ERROR(check_room(*pipe));
    OCTAVO_RETURN_IF_ERROR(draw_all(*pipe, Run::kA, options_.a.flag, result_.request));
    return false;
  }

  Status take_baseline(const Baseline& baseline) {
    result_.floor_f32 = baseline.floor_f32;
    result_.floor_bf16 = baseline.floor_bf16;
    result_.sources[static_cast<std::size_t>(Run::kF32)] = baseline.f32_source;
    result_.sources[static_cast<std::size_t>(Run::kBf16)] = baseline.bf16_source;
    calls_ = baseline.calls;
    for (std::size_t index = 0; index < result_.pictures.size(); ++index) {
      OCTAVO_ASSIGN_OR_RETURN(FloorErrors errors, read_errors(file_of(Run::kA, index, ".floor")));
      result_.pictures[index].floor.velocity = std::move(errors.floor);
      against_a_.push_back(std::move(errors.against_a));
    }
    spdlog::info("{} holds what {} and the noise floor give; B alone runs", options_.baseline.string(), result_.a.name);
    from_baseline_ = true;
    return {};
  }

  Status keep_baseline() {
    for (std::size_t index = 0; index < result_.pictures.size(); ++index) {
      OCTAVO_RETURN_IF_ERROR(
          write_errors(file_of(Run::kA, index, ".floor"), {result_.pictures[index].floor.velocity, against_a_[index]}));
    }
    return write_baseline(options_.baseline, baseline_key(result_, options_),
                          {.floor_f32 = result_.floor_f32,
                           .floor_bf16 = result_.floor_bf16,
                           .f32_source = result_.source(Run::kF32),
                           .bf16_source = result_.source(Run::kBf16),
                           .calls = calls_});
  }

  Status run_floor(Run run, pipeline::LoadOptions::Precision precision, const char* word, ComparedModel& model) {
    if (result_.a.arithmetic == word) {
      result_.sources[static_cast<std::size_t>(run)] = Run::kA;
      model = result_.a;
      return {};
    }
    ModelChoice choice = options_.a;
    choice.options.precision = precision;
    choice.precision = word;
    OCTAVO_ASSIGN_OR_RETURN(const auto pipe, load(choice, choice.flag));
    model = describe(choice, *pipe);
    return draw_all(*pipe, run, choice.flag, result_.request);
  }

  Status run_b() {
    OCTAVO_ASSIGN_OR_RETURN(const auto pipe, load(options_.b, options_.b.flag));
    result_.b = describe(options_.b, *pipe);
    // The same model twice does run twice: that it gives the same is something to see, not to take for granted. But the
    // floor's other end need not run again.
    if (other_end_ && same_files(options_.a.files, options_.b.files) &&
        result_.b.arithmetic == (*other_end_ == Run::kF32 ? result_.floor_f32 : result_.floor_bf16).arithmetic) {
      result_.sources[static_cast<std::size_t>(Run::kB)] = *other_end_;
      for (std::size_t i = 0; i < result_.pictures.size(); ++i) result_.pictures[i].ab.velocity = against_a_[i];
      return {};
    }
    generation::GenerationRequest request = result_.request;
    const auto resolved = generation::resolve(request, pipe->capabilities());
    if (!resolved.ok()) return of_flag(options_.b.flag, resolved.status());
    return draw_all(*pipe, Run::kB, options_.b.flag, *resolved);
  }

  Result<std::unique_ptr<Pipeline>> load(const ModelChoice& choice, const std::string& flag) {
    if (control_.cancel.cancelled()) return cancelled("the comparison was interrupted");
    auto loaded = pipeline::load_pipeline(choice.files, choice.options);
    if (!loaded.ok()) return of_flag(flag, loaded.status());
    return loaded;
  }

  /// Before hours of work: A's questions and answers, f32's answers, and four pictures each.
  Status check_room(Pipeline& pipe) {
    OCTAVO_ASSIGN_OR_RETURN(const auto* sampler, sampling::find_sampler(result_.request.sampler));
    OCTAVO_ASSIGN_OR_RETURN(const pipeline::DenoiseState state, pipe.begin(result_.request, 0));
    const std::size_t latents = state.sampler.latents.size() * sizeof(float);
    calls_ = static_cast<std::int64_t>(sampling::model_sigmas(*sampler, state.sampler.sigmas).size());
    const auto pixels = static_cast<std::size_t>(result_.request.width) * result_.request.height * 3;
    const std::size_t needed = result_.pictures.size() * (latents * (3 * calls_ + 4) + 4 * pixels);
    std::error_code error;
    const fs::space_info space = fs::space(result_.baseline, error);  // where nearly all of it lies
    if (!error && space.available < needed) {
      return resource_exhausted(
          options_.baseline.empty() ? "--report" : "--baseline",
          fmt::format("what lies on disk between the models takes up to {:.1f} GB there, {:.1f} GB are free: fewer "
                      "prompts, seeds or steps need less",
                      static_cast<double>(needed) / 1e9, static_cast<double>(space.available) / 1e9));
    }
    return {};
  }

  std::int64_t calls_in_all() const {
    const auto once = static_cast<std::int64_t>(result_.pictures.size()) * calls_;
    std::int64_t runs = from_baseline_ ? 0 : 1;
    for (const Run run : {Run::kF32, Run::kBf16, Run::kB}) {
      if (run != Run::kB && from_baseline_) continue;
      runs += result_.source(run) == run ? 2 : 0;
    }
    return once * runs;
  }

  Status draw_all(Pipeline& pipe, Run run, const std::string& flag, const generation::GenerationRequest& base) {
    const ComparedModel& model = run == Run::kA      ? result_.a
                                 : run == Run::kF32  ? result_.floor_f32
                                 : run == Run::kBf16 ? result_.floor_bf16
                                                     : result_.b;
    const std::string title = fmt::format("{}, {}", run == Run::kB ? "B" : "A", model.arithmetic);
    for (std::size_t index = 0; index < result_.pictures.size(); ++index) {
      const auto on_call = [&](const generation::Progress&) {
        ++calls_done_;
        if (control_.on_progress) {
          control_.on_progress({title, index, result_.pictures.size(), calls_done_, calls_in_all()});
        }
      };
      const Status status = draw(pipe, run, index, base, on_call);
      if (!status.ok()) return of_flag(flag, status);
    }
    return {};
  }

  Status draw(Pipeline& pipe, Run run, std::size_t index, const generation::GenerationRequest& base,
              const std::function<void(const generation::Progress&)>& on_call) {
    const ComparedPicture& picture = result_.pictures[index];
    const PromptEntry& entry = options_.prompts.entries[picture.prompt];
    generation::GenerationRequest wanted = base;
    wanted.prompt = entry.prompt;
    wanted.negative_prompt = entry.negative_prompt;
    wanted.seed = wanted.subseed = picture.seed;
    OCTAVO_ASSIGN_OR_RETURN(wanted, generation::resolve(wanted, pipe.capabilities()));
    generation::RunControl control;
    control.cancel = control_.cancel;
    OCTAVO_ASSIGN_OR_RETURN(pipeline::DenoiseState state, pipe.begin(wanted, 0));
    if (run != Run::kA) {
      control.on_progress = on_call;
      OCTAVO_RETURN_IF_ERROR(answer(pipe, run, index, state, control));
      control.on_progress = {};
    }
    std::optional<CallWriter> writer;
    if (run == Run::kA) writer.emplace(file_of(run, index, ".calls"));
    pipe.set_call_observer([&](int step, float sigma, const TensorView& latents, const TensorView& velocity) {
      if (writer) writer->add(step, sigma, latents, velocity);
      on_call({});
    });
    const Status status = pipe.advance(state, state.sampler.steps(), control);
    pipe.set_call_observer({});
    OCTAVO_RETURN_IF_ERROR(status);
    if (writer) OCTAVO_RETURN_IF_ERROR(writer->finish());
    OCTAVO_ASSIGN_OR_RETURN(image::Image drawn, pipe.decode(state));
    return write_end(file_of(run, index, ".end"), {state.sampler.latents, std::move(drawn)});
  }

  /// What this model says to A's questions, and how far that is from A and from the floor's other end.
  Status answer(Pipeline& pipe, Run run, std::size_t index, const pipeline::DenoiseState& state,
                const generation::RunControl& control) {
    OCTAVO_ASSIGN_OR_RETURN(std::vector<AnsweredCall> asked, read_calls(file_of(Run::kA, index, ".calls")));
    if (asked.front().call.latents.size() != state.sampler.latents.size()) {
      return failed_precondition("", fmt::format("has latents {}, A has {} values: the two cannot be compared",
                                                 state.sampler.shape.to_string(), asked.front().call.latents.size()));
    }
    std::vector<pipeline::ModelCall> calls;
    std::vector<std::vector<float>> a_said;
    for (AnsweredCall& one : asked) {
      calls.push_back(std::move(one.call));
      a_said.push_back(std::move(one.velocity));
    }
    OCTAVO_ASSIGN_OR_RETURN(const std::vector<std::vector<float>> said, pipe.predict(state, calls, control));
    for (std::size_t i = 0; i < said.size(); ++i) {
      if (std::all_of(said[i].begin(), said[i].end(), [](float value) { return std::isfinite(value); })) continue;
      return data_corruption("", fmt::format("answers NaN or infinity at step {}", calls[i].step));
    }
    const auto errors = [&calls](const std::vector<std::vector<float>>& reference,
                                 const std::vector<std::vector<float>>& test) {
      std::vector<CallError> out;
      for (std::size_t i = 0; i < calls.size(); ++i) {
        out.push_back({calls[i].step, calls[i].sigma, vector_error(reference[i], test[i])});
      }
      return out;
    };
    ComparedPicture& picture = result_.pictures[index];
    if (run == Run::kB) {
      picture.ab.velocity = errors(a_said, said);
      return {};
    }
    against_a_.resize(result_.pictures.size());
    against_a_[index] = errors(a_said, said);
    if (run == Run::kF32 && result_.a.arithmetic == "bf16") {
      picture.floor.velocity = errors(said, a_said);
    } else if (run == Run::kF32) {  // bf16 is still to come
      OCTAVO_RETURN_IF_ERROR(write_floats(file_of(run, index, ".said"), said));
    } else if (result_.source(Run::kF32) == Run::kA) {
      picture.floor.velocity = against_a_[index];
    } else {
      OCTAVO_ASSIGN_OR_RETURN(const auto f32_said, read_floats(file_of(Run::kF32, index, ".said")));
      picture.floor.velocity = errors(f32_said, said);
    }
    return {};
  }

  Status compare_ends() {
    for (std::size_t index = 0; index < result_.pictures.size(); ++index) {
      if (control_.on_progress) {
        control_.on_progress({"comparing", index, result_.pictures.size(), calls_done_, calls_done_});
      }
      if (control_.cancel.cancelled()) return cancelled("the comparison was interrupted");
      OCTAVO_RETURN_IF_ERROR(compare_end(Run::kA, Run::kB, index, result_.pictures[index].ab));
      OCTAVO_RETURN_IF_ERROR(compare_end(Run::kF32, Run::kBf16, index, result_.pictures[index].floor));
    }
    return {};
  }

  Status compare_end(Run reference, Run test, std::size_t index, PictureErrors& errors) const {
    OCTAVO_ASSIGN_OR_RETURN(const RunEnd r, read_end(file_of(result_.source(reference), index, ".end")));
    OCTAVO_ASSIGN_OR_RETURN(const RunEnd t, read_end(file_of(result_.source(test), index, ".end")));
    errors.latents = vector_error(r.latents, t.latents);
    errors.psnr_db = psnr_db(r.picture, t.picture);
    errors.ssim = ssim(r.picture, t.picture);
    errors.perceptual = perceptual_distance(r.picture, t.picture);
    return {};
  }

  const ComparisonOptions& options_;
  const ComparisonControl& control_;
  Comparison result_;
  std::int64_t calls_ = 0, calls_done_ = 0;
  bool from_baseline_ = false;
  std::optional<Run> other_end_;                   // of the floor, when A is one of its ends
  std::vector<std::vector<CallError>> against_a_;  // of the last of the floor's runs that was drawn, by picture
};

std::vector<double> of_calls(const PictureErrors& errors, double VectorError::*which) {
  std::vector<double> values;
  for (const CallError& call : errors.velocity) values.push_back(call.error.*which);
  return values;
}

}  // namespace

Result<image::Image> Comparison::picture(Run run, std::size_t index) const {
  const Run drawn = source(run);
  OCTAVO_ASSIGN_OR_RETURN(RunEnd end, read_end(file_of(drawn == Run::kB ? work : baseline, drawn, index, ".end")));
  return std::move(end.picture);
}

Result<Comparison> compare_models(const ComparisonOptions& options, const ComparisonControl& control) {
  return Comparer(options, control).compare();
}

Spread spread_of(const std::vector<double>& values, Better better) {
  Spread spread{.mean = std::numeric_limits<double>::quiet_NaN(),
                .worst = std::numeric_limits<double>::quiet_NaN(),
                .identical = 0,
                .count = values.size()};
  if (values.empty()) return spread;
  spread.worst = better == Better::kHigher ? *std::min_element(values.begin(), values.end())
                                           : *std::max_element(values.begin(), values.end());
  double sum = 0;
  for (const double value : values) {
    if (better == Better::kHigher && std::isinf(value) && value > 0) {
      ++spread.identical;
    } else {
      sum += value;
    }
  }
  const std::size_t finite = values.size() - spread.identical;
  spread.mean = finite > 0 ? sum / static_cast<double>(finite) : std::numeric_limits<double>::infinity();
  return spread;
}

const std::vector<Figure>& figures() {
  using E = PictureErrors;
  static const std::vector<Figure> rows = {
      {"velocity_sqnr_db", "Velocity, SQNR", "dB", Better::kHigher, 1, true,
       [](const E& e) { return of_calls(e, &VectorError::sqnr_db); }},
      {"velocity_cosine", "Velocity, cosine", "", Better::kHigher, 6, false,
       [](const E& e) { return of_calls(e, &VectorError::cosine); }},
      {"velocity_relative_l2", "Velocity, relative L2", "", Better::kLower, 4, false,
       [](const E& e) { return of_calls(e, &VectorError::relative_l2); }},
      {"latent_sqnr_db", "Final latents, SQNR", "dB", Better::kHigher, 1, true,
       [](const E& e) { return std::vector<double>{e.latents.sqnr_db}; }},
      {"latent_cosine", "Final latents, cosine", "", Better::kHigher, 6, false,
       [](const E& e) { return std::vector<double>{e.latents.cosine}; }},
      {"latent_relative_l2", "Final latents, relative L2", "", Better::kLower, 4, false,
       [](const E& e) { return std::vector<double>{e.latents.relative_l2}; }},
      {"psnr_db", "Pictures, PSNR", "dB", Better::kHigher, 1, true,
       [](const E& e) { return std::vector<double>{e.psnr_db}; }},
      {"ssim", "Pictures, SSIM", "", Better::kHigher, 4, false, [](const E& e) { return std::vector<double>{e.ssim}; }},
      {"perceptual", "Pictures, perceptual distance", "", Better::kLower, 4, false,
       [](const E& e) { return std::vector<double>{e.perceptual}; }},
  };
  return rows;
}

Spread summary(const Comparison& comparison, const Figure& figure, PictureErrors ComparedPicture::*which) {
  std::vector<double> values;
  for (const ComparedPicture& picture : comparison.pictures) {
    for (const double value : figure.values(picture.*which)) values.push_back(value);
  }
  return spread_of(values, figure.better);
}

}  // namespace octavo::quantize
