// Two models beside each other: the same prompts and noise through both, and what differs at every stage. Beside it the
// noise floor: what rounding activations to bf16 alone does to model A.
//
// One model is in memory at a time. A runs first, over all pictures, and leaves on disk what it asked the transformer
// and what came of it; the others then answer the same questions (pipeline::Pipeline::predict) and draw their own
// pictures. In memory: one model, and one picture's questions and answers, 2 * calls * latents floats.
#pragma once

#include <boost/json/value.hpp>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "generation/generation.h"
#include "pipeline/pipeline.h"
#include "quantize/compare/vector_error.h"
#include "quantize/prompt_file.h"

namespace octavo::quantize {

/// A model as a person asked for it.
struct ModelChoice {
  weights::ModelFiles files;
  pipeline::LoadOptions options;
  std::string precision;  // the word that `options` come from
  std::string flag;       // "--a": errors begin with it
};

struct ComparisonOptions {
  ModelChoice a, b;
  PromptFile prompts;
  std::string prompts_path;
  int seeds = 1;  // pictures a prompt, from the prompt's own seed or first_seed, each one more
  std::int64_t first_seed = 0;
  generation::GenerationRequest request;  // steps, guidance, size, sampler, schedule; defaults are A's
  std::filesystem::path work;             // an empty folder for what lies on disk between the models
  std::filesystem::path baseline;         // a folder that keeps what A and the floor left for other B's; "" = none
  std::string tool;                       // "octavo <version>"
};

/// What ran.
struct ComparedModel {
  std::string path;
  std::string name;
  std::string hash;                 // Capabilities::model_hash
  std::string precision;            // as asked for
  std::string arithmetic;           // as it was done
  std::size_t weight_bytes = 0;     // of the checkpoint's files
  boost::json::value quantization;  // transformer/quantization.json; null when the folder has none
};

struct CallError {
  int step = 0;
  float sigma = 0;
  VectorError error;
};

struct PictureErrors {
  std::vector<CallError> velocity;  // guided, at A's latents; one for each call of the transformer
  VectorError latents;              // at the end of each model's own way
  double psnr_db = 0;
  double ssim = 0;
  double perceptual = 0;
};

struct ComparedPicture {
  std::size_t prompt = 0;  // index into the prompt file's entries
  std::int64_t seed = 0;
  PictureErrors ab;     // B against A
  PictureErrors floor;  // A in bf16 against A in f32
};

enum class Run { kA, kF32, kBf16, kB };

struct Comparison {
  ComparedModel a, b, floor_f32, floor_bf16;
  PromptFile prompts;
  std::string prompts_path;
  int seeds = 1;
  std::int64_t first_seed = 0;
  generation::GenerationRequest request;  // resolved by A, without a prompt
  std::string processor;
  int threads = 0;
  bool native_bf16 = false;               // else products in bf16 are made by rounding
  std::vector<ComparedPicture> pictures;  // prompt by prompt, seed by seed
  std::filesystem::path work;             // pictures are read from it,
  std::filesystem::path baseline;         // and A's and the floor's from here

  /// What a run drew. The folders must still be there.
  Result<image::Image> picture(Run run, std::size_t index) const;
  /// The run whose results stand for `run`: the floor's is A's when A is in f32 or bf16 itself.
  Run source(Run run) const { return sources[static_cast<std::size_t>(run)]; }
  Run sources[4] = {Run::kA, Run::kF32, Run::kBf16, Run::kB};
};

struct ComparisonProgress {
  std::string run;  // "A, bf16"
  std::size_t picture = 0, pictures = 0;
  std::int64_t calls_done = 0, calls = 0;  // of the transformer, over all runs
};

struct ComparisonControl {
  std::function<void(const ComparisonProgress&)> on_progress;
  generation::CancelToken cancel;
};

/// Errors begin with the flag of the model or the field of the request ("width") they are about; kCancelled when the
/// token was set. Requires two models of the same latents.
Result<Comparison> compare_models(const ComparisonOptions& options, const ComparisonControl& control);

/// Mean over what is finite, and worst, of one figure over pictures (and calls).
struct Spread {
  double mean = 0;
  double worst = 0;
  std::size_t identical = 0;  // values that are infinite: there was no difference
  std::size_t count = 0;
};
enum class Better { kHigher, kLower };
/// Infinite values count as identical and not in the mean; when all are, mean and worst are infinite too. For figures
/// that are never infinite a plain mean. NaN for an empty list.
Spread spread_of(const std::vector<double>& values, Better better);

/// The figures of a report, in the order and with the names of report.json.
struct Figure {
  const char* key;
  const char* title;
  const char* unit;  // "dB" or ""
  Better better;
  int decimals;
  bool logarithmic;  // beside the floor: a difference, not a ratio
  std::vector<double> (*values)(const PictureErrors& errors);
};
const std::vector<Figure>& figures();
Spread summary(const Comparison& comparison, const Figure& figure, PictureErrors ComparedPicture::*which);

}  // namespace octavo::quantize
