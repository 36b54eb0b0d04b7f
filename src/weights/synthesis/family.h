// The sizes of a whole model: the released families, octavo-tiny, and either made smaller.
#pragma once

#include <string>

#include "base/status.h"
#include "weights/layouts/part_tensors.h"

namespace octavo::weights {

struct ModelSizes {
  TransformerSizes transformer;
  VaeSizes vae;
  ClipSizes clip_l, clip_g;
  T5Sizes t5;
  std::int64_t sample_size = 128;  // latent pixels a side of the default picture
  std::int64_t vae_groups = 32;
  double scaling_factor = 1.5305;
  double shift_factor = 0.0609;
};

/// What is named differs from the family; 0 = as the family has it.
struct SizeReductions {
  std::int64_t blocks = 0;        // of the transformer
  std::int64_t heads = 0;         // of the transformer, 64 wide each
  std::int64_t width_of_t5 = 0;   // a multiple of 64; makes all text encoders small: 2 layers, widths in proportion
  std::int64_t width_of_vae = 0;  // channels of its first level, a multiple of the group count; 2, 4, 4 times as deeper
  bool any() const { return blocks != 0 || heads != 0 || width_of_t5 != 0 || width_of_vae != 0; }
};

/// Rows of the embeddings where text encoders are made small: what the tokenizers that go with them have.
struct Vocabularies {
  std::int64_t clip_l = 0;
  std::int64_t clip_g = 0;
  std::int64_t t5 = 0;
};

/// `family`: large, large-turbo, medium, tiny. kInvalidArgument naming the flag.
Result<ModelSizes> model_sizes(const std::string& family, const SizeReductions& reductions,
                               const Vocabularies& small_vocabularies);

/// The config.json of a part as the released models have it; `dtype_word` is torch's ("bfloat16").
std::string part_config(Part part, const ModelSizes& sizes, const std::string& dtype_word);
/// model_index.json, whose T5 is [null, null] when there is none, and scheduler/scheduler_config.json.
std::string model_index_json(bool with_t5);
std::string scheduler_json();

}  // namespace octavo::weights
