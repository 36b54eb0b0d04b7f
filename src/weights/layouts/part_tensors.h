// Every tensor of a part, by its sizes: canonical names and shapes, written down from the published models and checked
// against diffusers and transformers (tools/reference/record_key_tables.py). What a writer of checkpoints enumerates;
// the models' loaders ask for the same names on their own, so that tests can compare the two.
#pragma once

#include <string>
#include <vector>

#include "tensor/tensor.h"
#include "weights/layouts/name_map.h"

namespace octavo::weights {

struct TensorShape {
  std::string name;
  Shape shape;
};

struct TransformerSizes {
  std::int64_t blocks = 0;
  std::int64_t width = 0;  // heads * head_width
  std::int64_t head_width = 64;
  std::int64_t position_side = 0;  // patches
  std::int64_t dual_blocks = 0;    // the first ones, which attend twice (Medium)
  bool qk_norm = true;
  std::int64_t channels = 16;
  std::int64_t context_width = 4096;
  std::int64_t pooled_width = 2048;
};
/// The released sizes; Large Turbo has Large's.
TransformerSizes sd35_large_transformer();
TransformerSizes sd35_medium_transformer();
std::vector<TensorShape> transformer_tensors(const TransformerSizes& sizes);

struct VaeSizes {
  std::vector<std::int64_t> channels = {128, 256, 512, 512};
  std::int64_t layers_per_block = 2;
  std::int64_t latent_channels = 16;
};
std::vector<TensorShape> vae_tensors(const VaeSizes& sizes);

struct ClipSizes {
  std::int64_t layers = 0;
  std::int64_t width = 0;
  std::int64_t feed_forward = 0;
  std::int64_t projection = 0;
  std::int64_t vocabulary = 49408;
  std::int64_t positions = 77;
};
ClipSizes clip_l_sizes();
ClipSizes clip_g_sizes();
std::vector<TensorShape> clip_tensors(const ClipSizes& sizes);

struct T5Sizes {
  std::int64_t layers = 24;
  std::int64_t width = 4096;
  std::int64_t heads = 64;
  std::int64_t head_width = 64;
  std::int64_t feed_forward = 10240;
  std::int64_t vocabulary = 32128;
  std::int64_t buckets = 32;
};
std::vector<TensorShape> t5_tensors(const T5Sizes& sizes);

/// The same part in the original layout: stored names without prefix, q, k and v joined, in order of their first use.
std::vector<TensorShape> in_original_layout(Part part, const std::vector<TensorShape>& canonical,
                                            const NameSizes& sizes);

}  // namespace octavo::weights
