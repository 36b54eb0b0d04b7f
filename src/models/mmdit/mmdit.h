// MMDiT: the velocity model of Stable Diffusion 3.5 (diffusers SD3Transformer2DModel; Esser et al., arXiv:2403.03206).
// In the blocks of `dual_layers` (MMDiT-X, Stable Diffusion 3.5 Medium) the image tokens also attend to themselves
// alone.
//
// What depends on the timestep and the pooled prompt alone (all adaLN modulations of all steps) and what depends on
// the prompt alone (the embedded context) is computed once before the loop by prepare(); predict() is the step.
#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "layers/linear.h"
#include "weights/checkpoint.h"

namespace octavo::models {

struct MmditConfig {
  int layers = 0;
  int heads = 0;
  std::int64_t head_width = 64;
  std::int64_t width = 0;  // heads * head_width
  std::int64_t in_channels = 16;
  std::int64_t out_channels = 16;
  std::int64_t context_width = 0;  // joint_attention_dim
  std::int64_t pooled_width = 0;   // pooled_projection_dim
  std::int64_t position_side = 0;  // pos_embed_max_size
  bool qk_norm = true;             // rms_norm; SD3.0 has none
  std::vector<int> dual_layers;    // blocks with a second attention over the image tokens; ascending

  bool is_dual(int layer) const { return std::binary_search(dual_layers.begin(), dual_layers.end(), layer); }
  /// `file` is named in errors. Refuses what this version does not compute by name.
  static Result<MmditConfig> from_json(const boost::json::object& config, const std::string& file);
};

/// The prompt and the schedule as the model sees them; R rows (uncond rows first, then cond rows, when guided).
struct MmditConditioning {
  TensorView context;      // [R, T, width] f32: embedded text
  TensorView modulations;  // [steps * R, modulation_width] f32, rows of a step together
  std::int64_t rows = 0;   // R

  /// Rows [first, first + count) of one call's group, as a conditioning whose call 0 they are: for a forward of some
  /// branches alone. Views of this one's memory.
  MmditConditioning part(int call, std::int64_t first, std::int64_t count) const {
    return {context.slice(0, first, count), modulations.slice(0, call * rows + first, count), count};
  }
};

class Mmdit {
 public:
  /// With WeightPrecision::kQuantized or kWeightsQuantized, the products of the blocks (attention and feed-forward of
  /// both streams) become E4M3 at load and what makes their modulations is stored as int8; embedders and the final
  /// product keep their bits.
  /// kStreamed: what makes the modulations, a third of the weights, which a picture reads once.
  static Result<Mmdit> load(device::Device& device, weights::CheckpointPart part, layers::Precision precision,
                            layers::Residency modulations = layers::Residency::kDevice);

  const MmditConfig& config() const { return config_; }
  const layers::WeightForms& forms() const { return forms_; }
  /// Columns of the modulation table: 9, 6 or 2 vectors of `width` for each stream of each block, 2 for the final norm.
  std::int64_t modulation_width() const { return modulation_width_; }

  /// text [R, T, context_width], pooled [R, pooled_width], timesteps [calls]: sigma * 1000 of each model call; all f32.
  /// Fills `conditioning.context` and `conditioning.modulations`, which the caller has allocated.
  void prepare(ops::ExecutionContext& context, const TensorView& text, const TensorView& pooled,
               const TensorView& timesteps, const MmditConditioning& conditioning) const;

  /// latents [R', C, height, width] f32 with R % R' == 0 (row r reads latent r % R'), `call` the row group of the
  /// modulation table, out [R, C, height, width] f32: the velocity, one row for each conditioning row. Stateless;
  /// rows do not influence each other. Height and width are even. The blocks of `skip_layers` (any order; what is no
  /// block is ignored) are left out: both streams pass them unchanged (skip-layer guidance).
  void predict(ops::ExecutionContext& context, const TensorView& latents, int call,
               const MmditConditioning& conditioning, const TensorView& out,
               std::span<const int> skip_layers = {}) const;

 private:
  struct Attention {
    layers::Linear qkv, out;
    layers::OwnedTensor q_norm, k_norm;
  };
  struct Stream {  // one of a block's two: image or text
    layers::Linear modulation, fc1, fc2;
    Attention attention;
    Attention own_attention;  // image stream of a dual block
    std::int64_t modulation_column = 0;
  };
  struct Block {
    Stream image, text;
    bool last = false;  // text has k and v only, modulation is (scale, shift)
    bool dual = false;
  };
  struct Step;  // one forward's buffers and what it does with them
  static Attention load_attention(layers::LoadContext& load, const std::string& at, const MmditConfig& config);
  static Stream load_image_stream(layers::LoadContext& load, layers::LoadContext& modulations, const std::string& at,
                                  const MmditConfig& config, bool dual);
  static Stream load_text_stream(layers::LoadContext& load, layers::LoadContext& modulations, const std::string& at,
                                 const MmditConfig& config, bool last);

  /// The first block from `index` on that is not skipped; null = the final norm follows.
  const Block* next_block(std::size_t index, std::span<const int> skip_layers) const;

  MmditConfig config_;
  std::string label_;
  DType dtype_ = DType::kF32;
  DType residual_dtype_ = DType::kF32;
  bool attention_codes_ = false;
  layers::WeightForms forms_;
  std::int64_t modulation_width_ = 0;
  std::int64_t final_column_ = 0;
  layers::Linear patch_, context_, time1_, time2_, pooled1_, pooled2_, final_modulation_, proj_out_;
  layers::OwnedTensor positions_;  // [P, P, width], the file's dtype
  std::vector<Block> blocks_;
  std::shared_ptr<layers::WeightStreamer> streamer_;  // of the modulations' weights, if they do not stay on the device
  std::shared_ptr<weights::WeightStore> weights_;
};

}  // namespace octavo::models
