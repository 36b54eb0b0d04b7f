#include "models/sd35/sd35.h"

#include <algorithm>
#include <boost/json.hpp>

namespace octavo::models {
namespace {

using weights::CheckpointPart;
using weights::ModelCheckpoint;
using weights::Part;

constexpr int kClipLength = 77;
constexpr int kDiffusersT5Length = 256;  // diffusers' default max_sequence_length

Result<FlowConfig> read_flow(const ModelCheckpoint& checkpoint) {
  const std::string file = "scheduler/scheduler_config.json";
  OCTAVO_ASSIGN_OR_RETURN(const auto stored, checkpoint.scheduler_config());
  FlowConfig flow;
  if (!stored) return flow;
  const boost::json::object& config = *stored;
  if (const auto* shift = config.if_contains("shift")) {
    if (!shift->is_number() || !(shift->to_number<double>() > 0)) return data_corruption(file, "shift is not positive");
    flow.shift = shift->to_number<double>();
  }
  if (config.contains("num_train_timesteps")) {
    OCTAVO_ASSIGN_OR_RETURN(const auto steps, weights::config_int(config, "num_train_timesteps", file));
    if (steps < 1 || steps > 1'000'000) return data_corruption(file, "num_train_timesteps is out of range");
    flow.train_steps = static_cast<int>(steps);
  }
  if (const auto* dynamic = config.if_contains("use_dynamic_shifting");
      dynamic != nullptr && dynamic->is_bool() && dynamic->get_bool()) {
    return invalid_argument(file,
                            "use_dynamic_shifting is on; Stable Diffusion 3.5 uses a static shift of 3.0: set it "
                            "to false");
  }
  return flow;
}

std::string hash_text(std::uint64_t hash) { return fmt::format("{:016x}", hash).substr(0, 10); }

/// FNV-1a over names, shapes and the head of each tensor: tells checkpoints apart without reading 16 GB.
std::uint64_t fingerprint(const weights::WeightStore& store, std::uint64_t hash) {
  const auto mix = [&hash](std::string_view text) {
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
  };
  for (const std::string& name : store.names()) {
    mix(name);
    mix(store.shape_of(name)->to_string());
    const auto head = store.first_bytes(name, 64);
    mix(std::string_view(reinterpret_cast<const char*>(head.data()), head.size()));
  }
  if (const auto& provenance = store.provenance()) {  // the same codes may be multiplied in other ways
    mix(provenance->layers_hash);
    mix(weights::activation_form_word(provenance->activations));
  }
  return hash;
}

}  // namespace

Result<Sd35> Sd35::load(device::Device& device, const ModelCheckpoint& checkpoint, layers::Precision precision,
                        const Residencies& residencies) {
  OCTAVO_ASSIGN_OR_RETURN(const FlowConfig flow, read_flow(checkpoint));
  std::size_t weight_bytes = 0;
  std::uint64_t hash = 0xCBF29CE484222325ull;
  const auto count = [&](const CheckpointPart& part) {
    weight_bytes += part.weights.byte_count();
    hash = fingerprint(part.weights, hash);
  };

  OCTAVO_ASSIGN_OR_RETURN(const auto tokenizer_folder, checkpoint.tokenizer_folder("tokenizer"));
  OCTAVO_ASSIGN_OR_RETURN(const auto tokenizer_2_folder, checkpoint.tokenizer_folder("tokenizer_2"));
  OCTAVO_ASSIGN_OR_RETURN(auto tokenizer_l, text::ClipTokenizer::load(tokenizer_folder));
  OCTAVO_ASSIGN_OR_RETURN(auto tokenizer_g, text::ClipTokenizer::load(tokenizer_2_folder));
  OCTAVO_ASSIGN_OR_RETURN(auto part_l, checkpoint.open_part(Part::kTextEncoder));
  count(part_l);
  OCTAVO_ASSIGN_OR_RETURN(
      auto encoder_l, ClipTextModel::load(device, std::move(part_l), precision.activations, residencies.text_encoders));
  OCTAVO_ASSIGN_OR_RETURN(auto part_g, checkpoint.open_part(Part::kTextEncoder2));
  count(part_g);
  OCTAVO_ASSIGN_OR_RETURN(
      auto encoder_g, ClipTextModel::load(device, std::move(part_g), precision.activations, residencies.text_encoders));
  std::optional<text::T5Tokenizer> tokenizer_t5;
  std::optional<T5Encoder> encoder_t5;
  if (checkpoint.has_part(Part::kTextEncoder3)) {
    OCTAVO_ASSIGN_OR_RETURN(const auto folder, checkpoint.tokenizer_folder("tokenizer_3"));
    OCTAVO_ASSIGN_OR_RETURN(tokenizer_t5, text::T5Tokenizer::load(folder));
    OCTAVO_ASSIGN_OR_RETURN(auto part_t5, checkpoint.open_part(Part::kTextEncoder3));
    count(part_t5);
    OCTAVO_ASSIGN_OR_RETURN(encoder_t5,
                            T5Encoder::load(device, std::move(part_t5), precision, residencies.text_encoders));
  }
  OCTAVO_ASSIGN_OR_RETURN(auto part_mmdit, checkpoint.open_part(Part::kTransformer));
  count(part_mmdit);
  const auto sample_size = weights::config_int(part_mmdit.config, "sample_size", "transformer/config.json");
  OCTAVO_ASSIGN_OR_RETURN(auto mmdit, Mmdit::load(device, std::move(part_mmdit), precision, residencies.modulations));
  OCTAVO_ASSIGN_OR_RETURN(auto part_vae, checkpoint.open_part(Part::kVae));
  count(part_vae);
  std::optional<AutoencoderEncoder> vae_encoder;
  if (AutoencoderEncoder::present(part_vae.weights)) {
    OCTAVO_ASSIGN_OR_RETURN(auto same_part, checkpoint.open_part(Part::kVae));
    OCTAVO_ASSIGN_OR_RETURN(vae_encoder, AutoencoderEncoder::load(device, std::move(same_part), precision.activations));
  }
  OCTAVO_ASSIGN_OR_RETURN(auto decoder, AutoencoderDecoder::load(device, std::move(part_vae), precision.activations));

  const auto disagree = [&](const std::string& what) { return data_corruption(checkpoint.name(), what); };
  const std::int64_t clip_width = encoder_l.config().width + encoder_g.config().width;
  if (clip_width > mmdit.config().context_width) {
    return disagree(fmt::format("the CLIP encoders are {} wide together, the transformer takes {}", clip_width,
                                mmdit.config().context_width));
  }
  if (encoder_t5 && encoder_t5->config().width != mmdit.config().context_width) {
    return disagree(fmt::format("text_encoder_3 is {} wide, the transformer takes {}", encoder_t5->config().width,
                                mmdit.config().context_width));
  }
  if (encoder_l.config().projection + encoder_g.config().projection != mmdit.config().pooled_width) {
    return disagree(fmt::format("the CLIP projections are {} wide together, the transformer takes {}",
                                encoder_l.config().projection + encoder_g.config().projection,
                                mmdit.config().pooled_width));
  }
  if (decoder.config().latent_channels != mmdit.config().in_channels ||
      mmdit.config().out_channels != mmdit.config().in_channels) {
    return disagree("transformer and vae disagree on the channels of a latent");
  }
  for (const ClipTextModel* encoder : {&encoder_l, &encoder_g}) {
    if (encoder->config().positions < kClipLength) return disagree("a CLIP encoder has fewer than 77 positions");
  }
  const auto check_vocabulary = [&](std::size_t tokens, std::int64_t rows, const std::string& part) -> Status {
    if (static_cast<std::int64_t>(tokens) <= rows) return {};
    return disagree(fmt::format("the tokenizer of {} has {} tokens, its embedding {} rows", part, tokens, rows));
  };
  OCTAVO_RETURN_IF_ERROR(
      check_vocabulary(tokenizer_l.vocabulary_size(), encoder_l.config().vocabulary, "text_encoder"));
  OCTAVO_RETURN_IF_ERROR(
      check_vocabulary(tokenizer_g.vocabulary_size(), encoder_g.config().vocabulary, "text_encoder_2"));
  if (encoder_t5) {
    OCTAVO_RETURN_IF_ERROR(
        check_vocabulary(tokenizer_t5->vocabulary_size(), encoder_t5->config().vocabulary, "text_encoder_3"));
  }

  Sd35Limits limits;
  limits.name = checkpoint.name();
  limits.family = checkpoint.family();
  limits.hash = hash_text(hash);
  const int downscale = decoder.config().downscale();
  limits.size_multiple = downscale * 2;
  limits.max_size = static_cast<int>(mmdit.config().position_side) * limits.size_multiple;
  limits.min_size = std::min(limits.min_size, limits.max_size);
  limits.default_size = sample_size.ok() ? static_cast<int>(*sample_size) * downscale : limits.max_size;
  limits.default_size =
      std::clamp(limits.default_size / limits.size_multiple * limits.size_multiple, limits.min_size, limits.max_size);
  limits.max_clip_skip = std::min(encoder_l.config().layers, encoder_g.config().layers);
  limits.max_t5_length = tokenizer_t5 ? tokenizer_t5->model_max_length() : kDiffusersT5Length;
  if (checkpoint.t5_length() > 0) limits.max_t5_length = checkpoint.t5_length();
  limits.default_t5_length = std::min(kDiffusersT5Length, limits.max_t5_length);
  return Sd35{std::move(tokenizer_l),  std::move(tokenizer_g),
              std::move(tokenizer_t5), std::move(encoder_l),
              std::move(encoder_g),    std::move(encoder_t5),
              std::move(mmdit),        std::move(decoder),
              std::move(vae_encoder),  flow,
              std::move(limits),       weight_bytes};
}

}  // namespace octavo::models
