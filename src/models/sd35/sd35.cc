#include "models/sd35/sd35.h"

#include <algorithm>
#include <boost/json.hpp>

#include "weights/safetensors.h"

namespace octavo::models {
namespace {

using weights::CheckpointPart;
using weights::DiffusersFolder;

constexpr int kClipLength = 77;
constexpr int kDiffusersT5Length = 256;  // diffusers' default max_sequence_length

Result<FlowConfig> read_flow(const DiffusersFolder& folder) {
  const std::string file = "scheduler/scheduler_config.json";
  OCTAVO_ASSIGN_OR_RETURN(const auto config, folder.read_json(file));
  FlowConfig flow;
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

std::string expected_class(const std::string& part) {
  if (part == "transformer") return "SD3Transformer2DModel";
  if (part == "vae") return "AutoencoderKL";
  if (part == "text_encoder_3") return "T5EncoderModel";
  return "CLIPTextModelWithProjection";
}

Result<CheckpointPart> open_part(const DiffusersFolder& folder, const std::string& part) {
  const auto* entry = folder.model_index().if_contains(part);
  if (entry != nullptr && entry->is_array() && entry->get_array().size() == 2 && entry->get_array()[1].is_string()) {
    const std::string found(entry->get_array()[1].get_string());
    if (found != expected_class(part)) {
      return invalid_argument((folder.root() / "model_index.json").string(),
                              part + " is a " + found + ", expected a " + expected_class(part));
    }
  }
  return folder.open_part(part);
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
  return hash;
}

}  // namespace

Result<Sd35> Sd35::load(device::Device& device, const std::filesystem::path& root, DType activation_dtype) {
  OCTAVO_ASSIGN_OR_RETURN(const DiffusersFolder folder, DiffusersFolder::open(root));
  const auto* pipeline_class = folder.model_index().if_contains("_class_name");
  if (pipeline_class == nullptr || !pipeline_class->is_string() ||
      !std::string_view(pipeline_class->get_string()).starts_with("StableDiffusion3")) {
    return invalid_argument(
        (root / "model_index.json").string(),
        "is a " +
            (pipeline_class != nullptr && pipeline_class->is_string() ? std::string(pipeline_class->get_string())
                                                                      : std::string("pipeline without a name")) +
            ", expected a StableDiffusion3Pipeline");
  }
  OCTAVO_ASSIGN_OR_RETURN(const FlowConfig flow, read_flow(folder));
  std::size_t weight_bytes = 0;
  std::uint64_t hash = 0xCBF29CE484222325ull;
  const auto count = [&](const CheckpointPart& part) {
    weight_bytes += part.weights.byte_count();
    hash = fingerprint(part.weights, hash);
  };

  OCTAVO_ASSIGN_OR_RETURN(auto tokenizer_l, text::ClipTokenizer::load(root / "tokenizer"));
  OCTAVO_ASSIGN_OR_RETURN(auto tokenizer_g, text::ClipTokenizer::load(root / "tokenizer_2"));
  OCTAVO_ASSIGN_OR_RETURN(auto part_l, open_part(folder, "text_encoder"));
  count(part_l);
  OCTAVO_ASSIGN_OR_RETURN(auto encoder_l, ClipTextModel::load(device, std::move(part_l), activation_dtype));
  OCTAVO_ASSIGN_OR_RETURN(auto part_g, open_part(folder, "text_encoder_2"));
  count(part_g);
  OCTAVO_ASSIGN_OR_RETURN(auto encoder_g, ClipTextModel::load(device, std::move(part_g), activation_dtype));
  std::optional<text::T5Tokenizer> tokenizer_t5;
  std::optional<T5Encoder> encoder_t5;
  if (folder.has_part("text_encoder_3")) {
    OCTAVO_ASSIGN_OR_RETURN(tokenizer_t5, text::T5Tokenizer::load(root / "tokenizer_3"));
    OCTAVO_ASSIGN_OR_RETURN(auto part_t5, open_part(folder, "text_encoder_3"));
    count(part_t5);
    OCTAVO_ASSIGN_OR_RETURN(encoder_t5, T5Encoder::load(device, std::move(part_t5), activation_dtype));
  }
  OCTAVO_ASSIGN_OR_RETURN(auto part_mmdit, open_part(folder, "transformer"));
  count(part_mmdit);
  const auto sample_size = weights::config_int(part_mmdit.config, "sample_size", "transformer/config.json");
  OCTAVO_ASSIGN_OR_RETURN(auto mmdit, Mmdit::load(device, std::move(part_mmdit), activation_dtype));
  OCTAVO_ASSIGN_OR_RETURN(auto part_vae, open_part(folder, "vae"));
  count(part_vae);
  std::optional<AutoencoderEncoder> vae_encoder;
  if (AutoencoderEncoder::present(part_vae.weights)) {
    OCTAVO_ASSIGN_OR_RETURN(auto same_part, open_part(folder, "vae"));
    OCTAVO_ASSIGN_OR_RETURN(vae_encoder, AutoencoderEncoder::load(device, std::move(same_part), activation_dtype));
  }
  OCTAVO_ASSIGN_OR_RETURN(auto decoder, AutoencoderDecoder::load(device, std::move(part_vae), activation_dtype));

  const auto disagree = [&](const std::string& what) { return data_corruption(root.string(), what); };
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
  const auto absolute = std::filesystem::weakly_canonical(root);
  limits.name = (absolute.has_filename() ? absolute : absolute.parent_path()).filename().string();
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
  limits.default_t5_length = std::min(kDiffusersT5Length, limits.max_t5_length);
  return Sd35{std::move(tokenizer_l),
              std::move(tokenizer_g),
              std::move(tokenizer_t5),
              std::move(encoder_l),
              std::move(encoder_g),
              std::move(encoder_t5),
              std::move(mmdit),
              std::move(decoder),
              std::move(vae_encoder),
              flow,
              std::move(limits),
              weight_bytes};
}

}  // namespace octavo::models
