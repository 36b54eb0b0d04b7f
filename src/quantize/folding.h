// Folding: a site's input divided by a vector s, channel by channel, and the weights that read it multiplied by the
// same (SmoothQuant, Xiao et al., arXiv:2211.10438), without a run-time cost and without changing what the model
// computes. Where a norm's modulation makes the input,
//     x / s = LN(v) * (1 + scale) / s + shift / s,
// so the modulation's rows of the shift and of the scale are divided, and the scale's bias b becomes (1 + b) / s - 1;
// where attention makes it, the rows of the value projections are divided, weight and bias, of both streams. After the
// feed-forward's GELU nothing can take the division: `multiplier()` is what has to run.
//
// Every s is a power of two: then weights keep their mantissas, in 16 bits as in 32, and only the scale's bias rounds.
// That bias is f32 whatever the model's dtype, because (1 + b) / s may be small beside the 1 that is taken away.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quantize/recipe.h"
#include "quantize/sites.h"
#include "weights/export/tensor_source.h"

namespace octavo::quantize {

/// A model with a recipe's smoothing in its weights. The source must outlive it; the recipe is not needed afterwards.
class FoldedSource final : public weights::TensorSource {
 public:
  /// kInvalidArgument naming the layer whose `smooth` has another length than its input, differs from that of the
  /// layers that read the same input, holds what is no power of two, or is at a layer that is at no site.
  static Result<std::unique_ptr<FoldedSource>> create(const weights::TensorSource& source, const Recipe& recipe);

  const std::vector<weights::SourcePart>& parts() const override { return parts_; }
  Status read(std::size_t part, std::size_t tensor, std::int64_t begin, std::int64_t count, DType dtype,
              std::byte* out) const override;
  void release(std::size_t part, std::size_t tensor) const override { source_.release(part, tensor); }

  /// What the layer's input has to be multiplied with while running: [K], or empty when there is nothing to do.
  std::vector<float> multiplier(std::string_view layer) const;

 private:
  /// What happens to one tensor: value (row, column) * rows[row] * columns[column]; empty vectors are ones. Of a bias,
  /// the elements in `ones` (first, count) have a 1 added before and taken away after.
  struct Change {
    std::vector<float> rows, columns;
    std::vector<std::pair<std::int64_t, std::int64_t>> ones;
  };
  explicit FoldedSource(const weights::TensorSource& source) : source_(source), parts_(source.parts()) {}
  void fold(const Site& site, const std::vector<float>& smooth, std::size_t part);
  Change& change_of(std::size_t part, const std::string& tensor);

  const weights::TensorSource& source_;
  std::vector<weights::SourcePart> parts_;
  std::map<std::pair<std::size_t, std::size_t>, Change> changes_;
  std::map<std::string, std::vector<float>, std::less<>> multipliers_;
};

/// The power of two nearest to a positive number, by ratio.
float nearest_power_of_two(float value);

}  // namespace octavo::quantize
