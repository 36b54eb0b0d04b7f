// SyntheticSource: random weights with which every activation stays sane through the whole depth of the model. A value
// depends on the seed, its tensor's canonical name and its place in the tensor, and on nothing else: all layouts of one
// seed hold the same numbers, any piece can be made alone, and any number of threads makes the same file.
//
// How values are drawn (z: the sum of four uniform 16-bit numbers, mean 0, deviation 1, within +-3.47):
//   weights of products and convolutions    z / sqrt(fan in): unit input gives unit output
//   ... that write into a residual stream of the text encoders and the autoencoder: half of that
//   T5's queries                            a further 1/8: T5 does not divide its scores by the root of the head width
//   modulations (adaLN)                     weights z / (2 sqrt(fan in)), biases z / 10: shifts, scales and gates of
//                                           about 0.2, so that each of 38 blocks adds a few per cent to its stream
//   norm weights                            1 + z / 10
//   other biases                            z / 50
//   embeddings of tokens                    z (T5), z / 2 (CLIP); of positions z / 10; T5's position bias z / 2
//   the position table                      the sines and cosines of the released models
//
// Planted outliers, K a site (channels and factors drawn from the seed): a channel c is made m times its neighbours, m
// between 50 and 1000 with a random sign, uniform in its logarithm, as reported for diffusion transformers, and the
// weights that read it are divided by m, so that what the layer computes keeps its size. Sites of every block, image
// and text stream: the input of q, k, v and the input of the first feed-forward product (through the bias of the
// modulation's scale), the input of the second feed-forward product (through the rows of the first).
#pragma once

#include <cstdint>
#include <vector>

#include "weights/export/tensor_source.h"
#include "weights/synthesis/family.h"

namespace octavo::weights {

struct SynthesisOptions {
  std::uint64_t seed = 0;
  int outliers = 0;            // channels a site
  DType dtype = DType::kBF16;  // of the tensors as the source shows them; values are made in f32 and rounded
};

class SyntheticSource final : public TensorSource {
 public:
  SyntheticSource(const ModelSizes& sizes, const SynthesisOptions& options);
  const std::vector<SourcePart>& parts() const override { return parts_; }
  /// Any place counts, also behind the tensor's end: values go on as they began (but for position tables).
  Status read(std::size_t part, std::size_t tensor, std::int64_t begin, std::int64_t count, DType dtype,
              std::byte* out) const override;

  /// How a tensor's values are drawn, outliers apart.
  struct Spread {
    float mean = 0.0f;
    float deviation = 1.0f;
    bool position_table = false;
    auto operator<=>(const Spread&) const = default;
  };
  Spread spread(std::size_t part, std::size_t tensor) const {
    const Recipe& recipe = recipes_[part][tensor];
    return {recipe.mean, recipe.deviation, recipe.position_table};
  }

 private:
  /// One row or column of a matrix (or element of a vector) that differs from its neighbours.
  struct Planted {
    std::int64_t index = 0;
    float factor = 1.0f;
  };
  struct Recipe {
    std::uint64_t key = 0;
    float mean = 0.0f;
    float deviation = 1.0f;
    bool position_table = false;
    std::vector<Planted> row_factors;     // multiply what was drawn
    std::vector<Planted> column_factors;  // likewise
    std::vector<Planted> replaced;        // elements of a vector that are the factor itself
  };
  Recipe recipe_of(Part part, const SourceTensor& tensor) const;
  void plant(const SourceTensor& tensor, Recipe& recipe) const;
  std::vector<Planted> planted_at(const std::string& site, std::int64_t channels) const;
  void draw(const Recipe& recipe, const Shape& shape, std::int64_t begin, std::int64_t count, float* out) const;
  void draw_positions(std::int64_t begin, std::int64_t count, float* out) const;

  ModelSizes sizes_;
  SynthesisOptions options_;
  std::vector<SourcePart> parts_;
  std::vector<std::vector<Recipe>> recipes_;
  std::vector<float> position_axis_;  // [position_side, width / 2]: what one coordinate adds to the position table
};

}  // namespace octavo::weights
