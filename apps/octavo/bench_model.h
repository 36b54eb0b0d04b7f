// `octavo bench` on a whole model: the stages of a picture, one step op by op, and what each residency mode costs.
#pragma once

#include <boost/json.hpp>
#include <string>

#include "compute_flags.h"
#include "generation/generation.h"
#include "model_path.h"

namespace octavo::app {

struct ModelBench {
  ModelFlags model;
  ComputeFlags compute;
  std::string precision = "auto";
  bool static_scales = false;
  int repeat = 5;
  generation::GenerationRequest request{.prompt = "three red apples on a blue background"};
};

/// Each prints a table and gives the same as JSON.
Result<boost::json::value> bench_picture(const ModelBench& bench);
Result<boost::json::value> bench_ops_of_model(const ModelBench& bench);
Result<boost::json::value> bench_residency(const ModelBench& bench);

}  // namespace octavo::app
