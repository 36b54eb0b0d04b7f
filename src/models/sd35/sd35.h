// Stable Diffusion 3.5 put together: which parts a checkpoint has, in which precision they run, what the model can do.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "models/autoencoder_kl/decoder.h"
#include "models/autoencoder_kl/encoder.h"
#include "models/clip/clip_text_model.h"
#include "models/mmdit/mmdit.h"
#include "models/t5/t5_encoder.h"
#include "text/clip_tokenizer.h"
#include "text/t5_tokenizer.h"
#include "weights/model_checkpoint.h"

namespace octavo::models {

/// What the sampler needs to know of scheduler/scheduler_config.json.
struct FlowConfig {
  double shift = 3.0;
  int train_steps = 1000;
};

/// Defaults that a checkpoint implies: the sizes of its tables, not of its weights.
struct Sd35Limits {
  std::string name;  // the folder's or file's name
  weights::Family family = weights::Family::kUnknown;
  std::string hash;  // 10 hex digits over names, shapes and the first bytes of every tensor
  int size_multiple = 16;
  int min_size = 128;
  int max_size = 0;
  int default_size = 0;
  int max_t5_length = 0;
  int default_t5_length = 0;
  int max_clip_skip = 0;  // layers of the smaller CLIP encoder
};

/// Which weights stay in a GPU's memory between their uses.
struct Residencies {
  layers::Residency text_encoders = layers::Residency::kDevice;
  layers::Residency modulations = layers::Residency::kDevice;
};

struct Sd35 {
  text::ClipTokenizer tokenizer_l, tokenizer_g;
  std::optional<text::T5Tokenizer> tokenizer_t5;  // absent with encoder_t5: zeros stand for T5, as in diffusers
  ClipTextModel encoder_l, encoder_g;
  std::optional<T5Encoder> encoder_t5;
  Mmdit mmdit;
  AutoencoderDecoder decoder;
  std::optional<AutoencoderEncoder> encoder;  // absent when the file has none: pictures cannot be input then
  FlowConfig flow;
  Sd35Limits limits;
  std::size_t weight_bytes = 0;  // of the checkpoint's files

  /// Text encoders and MMDiT run in `precision`; residual streams, norms, modulations and the sampler are f32 either
  /// way. Quantising at load is the MMDiT's; the T5 encoder uses or widens the codes that it has, CLIP and the
  /// autoencoder have none.
  static Result<Sd35> load(device::Device& device, const weights::ModelCheckpoint& checkpoint,
                           layers::Precision precision, const Residencies& residencies = {});
};

}  // namespace octavo::models
