// The same weights through every layout: latents and pixels are equal bit for bit. The weights are numbers that E4M3
// and E5M2 hold exactly, so that FP8 files stand for the same model; sizes are reduced, names are complete.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <sstream>

#include "pipeline/pipeline.h"
#include "tensor/float8.h"
#include "weights/layouts/part_tensors.h"

namespace octavo::parity {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using weights::ModelFiles;
using weights::Part;
using weights::TensorShape;

constexpr std::int64_t kClipVocabulary = 1154, kT5Vocabulary = 1000;  // of octavo-tiny's tokenizers

/// A model in memory: tables by part, values by name.
struct Model {
  std::int64_t blocks = 2;
  std::int64_t dual_blocks = 0;
  std::int64_t width = 128;

  std::vector<TensorShape> table(Part part) const {
    switch (part) {
      case Part::kTransformer:
        return weights::transformer_tensors({.blocks = blocks,
                                             .width = width,
                                             .position_side = 16,
                                             .dual_blocks = dual_blocks,
                                             .context_width = 192,
                                             .pooled_width = 192});
      case Part::kVae:
        return weights::vae_tensors({.channels = {32, 32, 64, 64}, .layers_per_block = 1});
      case Part::kTextEncoder:
        return weights::clip_tensors(
            {.layers = 2, .width = 64, .feed_forward = 96, .projection = 64, .vocabulary = kClipVocabulary});
      case Part::kTextEncoder2:
        return weights::clip_tensors(
            {.layers = 2, .width = 128, .feed_forward = 96, .projection = 128, .vocabulary = kClipVocabulary});
      case Part::kTextEncoder3:
        return weights::t5_tensors(
            {.layers = 2, .width = 192, .heads = 2, .feed_forward = 160, .vocabulary = kT5Vocabulary});
    }
    return {};
  }

  /// What both FP8 formats hold: four mantissas, three exponents, both signs. CLIP-L's projection is the identity, as
  /// in the published files.
  static std::vector<float> values(Part part, const TensorShape& tensor) {
    std::vector<float> result(static_cast<std::size_t>(tensor.shape.element_count()));
    if (part == Part::kTextEncoder && tensor.name == "text_projection.weight") {
      for (std::size_t i = 0; i < result.size(); i += static_cast<std::size_t>(tensor.shape[0]) + 1) result[i] = 1;
      return result;
    }
    std::uint64_t state = 0xCBF29CE484222325ull + static_cast<std::uint64_t>(part);
    for (const char c : tensor.name) state = (state ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
    const bool norm = tensor.shape.rank() == 1 && tensor.name.ends_with(".weight");
    for (float& value : result) {
      state = state * 6364136223846793005ull + 1442695040888963407ull;
      const auto bits = static_cast<unsigned>(state >> 40);
      value = (1.0f + 0.25f * static_cast<float>(bits & 3u)) *
              std::ldexp(1.0f, norm ? -1 : -6 + static_cast<int>(bits >> 2 & 1u));
      if (!norm && (bits >> 5 & 1u) != 0) value = -value;
    }
    return result;
  }
};

/// One tensor of a file, and the bytes behind it.
struct Stored {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  std::vector<std::byte> bytes;
};

std::vector<std::byte> encode(const std::vector<float>& values, DType dtype) {
  std::vector<std::byte> bytes(values.size() * dtype_size(dtype));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float value = values[i];
    std::byte* at = bytes.data() + i * dtype_size(dtype);
    const auto put = [at](const auto& stored) { std::memcpy(at, &stored, sizeof stored); };
    switch (dtype) {
      case DType::kF16:
        put(to_float16(value));
        break;
      case DType::kBF16:
        put(to_bfloat16(value));
        break;
      case DType::kE4M3:
        put(to_float8_e4m3(value));
        break;
      case DType::kE5M2:
        put(to_float8_e5m2(value));
        break;
      default:
        put(value);
    }
  }
  return bytes;
}

using Metadata = std::map<std::string, std::string>;

void write(const fs::path& path, const std::vector<Stored>& tensors, const Metadata& metadata = {}) {
  fs::create_directories(path.parent_path());
  std::vector<weights::NamedTensor> named;
  for (const Stored& one : tensors) {
    named.push_back({one.name, TensorView(static_cast<const void*>(one.bytes.data()), one.dtype, one.shape)});
  }
  const Status status = weights::write_safetensors(path, named, metadata);
  OCTAVO_CHECK(status.ok(), "{}", status.to_string());
}

void write_json(const fs::path& path, const boost::json::object& value) {
  fs::create_directories(path.parent_path());
  std::ofstream(path) << boost::json::serialize(value);
}

/// How ComfyUI keeps a layer's FP8.
enum class Scales { kNone, kOld, kNewTensors, kNewMetadata };

struct Style {
  DType dtype = DType::kBF16;
  Scales scales = Scales::kNone;
};

/// A tensor's place in a file: FP8 with a scale for weights of products, as it is for the rest.
void store(std::vector<Stored>& file, const std::string& prefix, const std::string& name, const Shape& shape,
           std::vector<float> values, const Style& style, boost::json::object& layers) {
  // ComfyUI scales Linears alone: matrices behind a name, tables excepted.
  const bool product = shape.rank() == 2 && name.ends_with(".weight") &&
                       name.find("embed_tokens") == std::string::npos && name != "shared.weight" &&
                       name.find("embedding.weight") == std::string::npos &&
                       name.find("relative_attention_bias") == std::string::npos && name != "text_projection.weight";
  const std::string whole = prefix + name;
  if (style.scales == Scales::kNone || !product) {
    const bool kept = style.scales != Scales::kNone;
    const DType dtype = kept ? DType::kBF16 : style.dtype;
    file.push_back({whole, dtype, shape, encode(values, dtype)});
    return;
  }
  const float scale = std::ldexp(1.0f, -3);
  for (float& value : values) value /= scale;
  file.push_back({whole, style.dtype, shape, encode(values, style.dtype)});
  const std::string layer = whole.substr(0, whole.size() - 7);
  const bool old = style.scales == Scales::kOld;
  file.push_back({layer + (old ? ".scale_weight" : ".weight_scale"), DType::kF32, old ? Shape{1} : Shape{},
                  encode({scale}, DType::kF32)});
  file.push_back({layer + (old ? ".scale_input" : ".input_scale"), DType::kF32, Shape{}, encode({0.5f}, DType::kF32)});
  const boost::json::object format{{"format", style.dtype == DType::kE4M3 ? "float8_e4m3fn" : "float8_e5m2"}};
  if (style.scales == Scales::kNewTensors) {
    const std::string text = boost::json::serialize(format);
    const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
    file.push_back({layer + ".comfy_quant", DType::kI8, Shape{static_cast<std::int64_t>(text.size())},
                    std::vector<std::byte>(bytes, bytes + text.size())});
  } else if (style.scales == Scales::kNewMetadata) {
    layers[name.substr(0, name.size() - 7)] = format;  // without the prefix
  }
}

/// Adds a part in the original names. Written here from the map that key_tables.json proves against diffusers.
void add_original(std::vector<Stored>& file, const Model& model, Part part, const std::string& prefix,
                  const Style& style, boost::json::object& layers) {
  const weights::NameSizes sizes{.blocks = static_cast<int>(model.blocks), .vae_levels = 4};
  struct Joined {
    Shape shape;
    std::vector<std::vector<float>> pieces;
  };
  std::map<std::string, Joined> joined;
  for (const TensorShape& tensor : model.table(part)) {
    const auto place = weights::placement_in_original(part, tensor.name, sizes).value();
    std::vector<float> values = Model::values(part, tensor);
    if (place.swap_halves)
      std::rotate(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
    Joined& target = joined[place.stored];
    target.shape = weights::shape_in_original(tensor.shape, place);
    target.pieces.resize(static_cast<std::size_t>(place.slice_count));
    target.pieces[static_cast<std::size_t>(place.slice)] = std::move(values);
  }
  for (const auto& [name, target] : joined) {
    std::vector<float> values;
    for (const auto& piece : target.pieces) values.insert(values.end(), piece.begin(), piece.end());
    store(file, prefix, name, target.shape, std::move(values), style, layers);
  }
  if (style.scales == Scales::kOld) file.push_back({prefix + "scaled_fp8", style.dtype, Shape{2}, {{}, {}}});
}

Metadata quantization(const boost::json::object& layers) {
  if (layers.empty()) return {};
  return {{"_quantization_metadata",
           boost::json::serialize(boost::json::object{{"format_version", "1.0"}, {"layers", layers}})}};
}

class Layouts : public ::testing::TestWithParam<std::int64_t> {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "octavo-layouts-XXXXXX").string();
    OCTAVO_CHECK(mkdtemp(pattern.data()) != nullptr, "no temporary folder");
    root_ = pattern;
    model_.dual_blocks = GetParam();
  }
  void TearDown() override { fs::remove_all(root_); }

  static fs::path tokenizers() { return std::string(OCTAVO_SOURCE_DIR) + "/models/octavo-tiny"; }

  /// Everything in one file; T5's table under both names as in ComfyUI's separate files when `twice`.
  fs::path all_in_one(const std::string& name, const Style& style) const {
    std::vector<Stored> file;
    boost::json::object layers;
    for (const weights::PartNames& row : weights::kParts) {
      // Autoencoders stay 16 bit where layers have scales.
      const bool vae = row.part == Part::kVae && style.scales != Scales::kNone;
      add_original(file, model_, row.part, std::string(row.prefix), vae ? Style{} : style, layers);
    }
    file.push_back({"text_encoders.clip_l.logit_scale", DType::kF32, Shape{}, encode({4.6f}, DType::kF32)});
    write(root_ / name, file, quantization(layers));
    return root_ / name;
  }

  fs::path one_part(const std::string& name, Part part, const std::string& prefix, const Style& style = {},
                    const std::function<void(std::vector<Stored>&)>& change = {}) const {
    std::vector<Stored> file;
    boost::json::object layers;
    add_original(file, model_, part, prefix, style, layers);
    if (change) change(file);
    write(root_ / name, file, quantization(layers));
    return root_ / name;
  }

  fs::path diffusers_folder(const std::string& name, DType dtype, const std::string& variant, bool sharded) const {
    const fs::path folder = root_ / name;
    boost::json::object index{{"_class_name", "StableDiffusion3Pipeline"}};
    const char* classes[] = {"SD3Transformer2DModel", "AutoencoderKL", "CLIPTextModelWithProjection",
                             "CLIPTextModelWithProjection", "T5EncoderModel"};
    for (const weights::PartNames& row : weights::kParts) {
      index[row.folder] = {"library", classes[static_cast<std::size_t>(row.part)]};
      const bool text = row.part != Part::kTransformer && row.part != Part::kVae;
      const std::string stem = text ? "model" : "diffusion_pytorch_model";
      std::vector<Stored> files[2];
      boost::json::object map;
      const std::string shards[2] = {stem + variant + "-00001-of-00002.safetensors",
                                     stem + variant + "-00002-of-00002.safetensors"};
      for (const TensorShape& tensor : model_.table(row.part)) {
        const std::size_t shard = sharded ? map.size() % 2 : 0;
        files[shard].push_back({tensor.name, dtype, tensor.shape, encode(Model::values(row.part, tensor), dtype)});
        map[tensor.name] = shards[shard];
      }
      const fs::path part = folder / row.folder;
      if (sharded) {
        for (std::size_t i = 0; i < 2; ++i) write(part / shards[i], files[i]);
        write_json(part / (stem + ".safetensors.index" + variant + ".json"), {{"weight_map", map}});
      } else {
        write(part / (stem + variant + ".safetensors"), files[0]);
      }
      write_json(part / "config.json", config(row.part));
    }
    write_json(folder / "model_index.json", index);
    write_json(folder / "scheduler/scheduler_config.json", {{"shift", 3.0}, {"num_train_timesteps", 1000}});
    for (const char* tokenizer : {"tokenizer", "tokenizer_2", "tokenizer_3"}) {
      fs::copy(tokenizers() / tokenizer, folder / tokenizer, fs::copy_options::recursive);
    }
    return folder;
  }

  boost::json::object config(Part part) const {
    boost::json::array dual;
    for (std::int64_t i = 0; i < model_.dual_blocks; ++i) dual.emplace_back(i);
    switch (part) {
      case Part::kTransformer:
        return {{"num_layers", model_.blocks},
                {"num_attention_heads", 2},
                {"attention_head_dim", 64},
                {"in_channels", 16},
                {"out_channels", 16},
                {"joint_attention_dim", 192},
                {"pooled_projection_dim", 192},
                {"caption_projection_dim", 128},
                {"pos_embed_max_size", 16},
                {"patch_size", 2},
                {"sample_size", 32},
                {"qk_norm", "rms_norm"},
                {"dual_attention_layers", dual}};
      case Part::kVae:
        return {{"block_out_channels", {32, 32, 64, 64}},
                {"layers_per_block", 1},
                {"latent_channels", 16},
                {"norm_num_groups", 32},
                {"scaling_factor", 1.5305},
                {"shift_factor", 0.0609},
                {"use_quant_conv", false},
                {"use_post_quant_conv", false}};
      case Part::kTextEncoder:
      case Part::kTextEncoder2: {
        const std::int64_t width = part == Part::kTextEncoder ? 64 : 128;
        return {{"num_hidden_layers", 2},
                {"hidden_size", width},
                {"num_attention_heads", width / 64},
                {"intermediate_size", 96},
                {"vocab_size", kClipVocabulary},
                {"max_position_embeddings", 77},
                {"projection_dim", width},
                {"hidden_act", part == Part::kTextEncoder ? "quick_gelu" : "gelu"},
                {"layer_norm_eps", 1e-5},
                {"eos_token_id", 2}};
      }
      case Part::kTextEncoder3:
        return {{"num_layers", 2},
                {"d_model", 192},
                {"num_heads", 2},
                {"d_kv", 64},
                {"d_ff", 160},
                {"vocab_size", kT5Vocabulary},
                {"relative_attention_num_buckets", 32},
                {"feed_forward_proj", "gated-gelu"},
                {"layer_norm_epsilon", 1e-6}};
    }
    return {};
  }

  struct Drawn {
    std::vector<float> latents;
    std::vector<std::uint8_t> pixels;
  };
  static Drawn draw(ModelFiles files, pipeline::LoadOptions::Precision precision) {
    if (files.tokenizers.empty()) files.tokenizers = tokenizers();
    pipeline::LoadOptions options;
    options.precision = precision;
    options.threads = 1;
    const auto pipe = pipeline::load_pipeline(files, options);
    OCTAVO_CHECK(pipe.ok(), "{}", pipe.status().to_string());
    generation::GenerationRequest request;
    request.prompt = "a red apple";
    request.width = request.height = 128;
    request.steps = 2;
    request.seed = 5;
    request.guidance_scale = 3;
    request.t5_length = 32;
    const auto resolved = generation::resolve(request, (*pipe)->capabilities()).value();
    pipeline::DenoiseState state = (*pipe)->begin(resolved, 0).value();
    const Status status = (*pipe)->advance(state, resolved.steps, {});
    OCTAVO_CHECK(status.ok(), "{}", status.to_string());
    return {state.sampler.latents, (*pipe)->decode(state)->pixels};
  }

  Model model_;
  fs::path root_;
};

TEST_P(Layouts, same_weights_give_the_same_bits) {
  using Precision = pipeline::LoadOptions::Precision;
  const auto duplicate_table = [](std::vector<Stored>& file) {
    for (std::size_t i = 0, count = file.size(); i < count; ++i) {
      if (file[i].name != "shared.weight") continue;
      file.push_back(file[i]);
      file.back().name = "encoder.embed_tokens.weight";
    }
  };
  const auto rename_table = [](std::vector<Stored>& file) {
    for (Stored& one : file) {
      if (one.name == "shared.weight") one.name = "encoder.embed_tokens.weight";
    }
  };
  const auto drop_projection = [](std::vector<Stored>& file) {
    std::erase_if(file, [](const Stored& one) { return one.name == "text_projection.weight"; });
  };

  std::vector<std::pair<std::string, ModelFiles>> layouts;
  layouts.emplace_back("sharded f16 variant", diffusers_folder("variant", DType::kF16, ".fp16", true));
  layouts.emplace_back("plain E4M3 in a diffusers folder", diffusers_folder("fp8", DType::kE4M3, "", false));
  layouts.emplace_back("original, all in one", all_in_one("all.safetensors", {}));
  for (const DType dtype : {DType::kE4M3, DType::kE5M2}) {
    const std::string word(dtype_name(dtype));
    layouts.emplace_back("plain " + word, all_in_one("plain_" + word + ".safetensors", {dtype}));
    layouts.emplace_back("old scales " + word, all_in_one("old_" + word + ".safetensors", {dtype, Scales::kOld}));
  }
  layouts.emplace_back("new scales", all_in_one("new.safetensors", {DType::kE4M3, Scales::kNewTensors}));
  layouts.emplace_back("new scales, metadata", all_in_one("meta.safetensors", {DType::kE5M2, Scales::kNewMetadata}));

  // The original single file without encoders, and the encoders as published beside it.
  std::vector<Stored> file;
  boost::json::object layers;
  add_original(file, model_, Part::kTransformer, "model.diffusion_model.", {}, layers);
  add_original(file, model_, Part::kVae, "first_stage_model.", {}, layers);
  write(root_ / "sd3.5_large.safetensors", file);
  ModelFiles parts(root_ / "sd3.5_large.safetensors");
  parts.clip_l = one_part("clip_l.safetensors", Part::kTextEncoder, "", {}, drop_projection);
  parts.clip_g = one_part("clip_g.safetensors", Part::kTextEncoder2, "");
  parts.t5 = one_part("t5xxl_fp16.safetensors", Part::kTextEncoder3, "", {DType::kF16}, duplicate_table);
  layouts.emplace_back("original and separate encoders", parts);

  ModelFiles bare = parts;
  bare.model = one_part("bare/transformer.safetensors", Part::kTransformer, "", {DType::kE4M3, Scales::kNewMetadata});
  bare.vae = one_part("vae.safetensors", Part::kVae, "vae.");
  bare.t5 =
      one_part("t5xxl_fp8_scaled.safetensors", Part::kTextEncoder3, "", {DType::kE4M3, Scales::kOld}, rename_table);
  layouts.emplace_back("transformer alone, scaled T5", bare);
  ModelFiles borrowed = parts;
  borrowed.clip_l = root_ / "variant";                     // a whole diffusers folder: its text_encoder
  borrowed.clip_g = root_ / "variant" / "text_encoder_2";  // one part's folder
  borrowed.vae = root_ / "vae.safetensors";
  layouts.emplace_back("parts of a diffusers folder", borrowed);

  const fs::path reference = diffusers_folder("reference", DType::kBF16, "", false);
  for (const Precision precision : {Precision::kF32, Precision::kBf16}) {
    const Drawn expected = draw(reference, precision);
    for (const auto& [name, files] : layouts) {
      SCOPED_TRACE(name);
      const Drawn drawn = draw(files, precision);
      EXPECT_TRUE(drawn.latents == expected.latents) << "latents differ";
      EXPECT_TRUE(drawn.pixels == expected.pixels) << "pixels differ";
    }
  }
}

class BadFiles : public Layouts {};

TEST_P(BadFiles, are_named_with_what_to_do) {
  const auto refusal = [](const ModelFiles& files) {
    const auto opened = weights::ModelCheckpoint::open(files);
    return opened.ok() ? "opened" : opened.status().to_string();
  };
  const auto text = [this](const std::string& name, const std::string& content) {
    std::ofstream(root_ / name, std::ios::binary) << content;
    return root_ / name;
  };
  const auto foreign = [this](const std::string& name, const std::vector<std::string>& tensors) {
    std::vector<Stored> file;
    for (const std::string& one : tensors) file.push_back({one, DType::kF16, Shape{1}, {{}, {}}});
    write(root_ / name, file);
    return root_ / name;
  };
  const std::string unet = "model.diffusion_model.input_blocks.0.0.weight";
  // Other models.
  EXPECT_THAT(refusal(foreign("xl.safetensors", {unet, "model.diffusion_model.label_emb.0.0.weight", "cond.x"})),
              AllOf(HasSubstr("xl.safetensors"), HasSubstr("UNet of Stable Diffusion XL"), HasSubstr("--model")));
  EXPECT_THAT(refusal(foreign("15.safetensors", {unet})), HasSubstr("UNet of Stable Diffusion 1 or 2"));
  EXPECT_THAT(refusal(foreign("flux.safetensors", {"double_blocks.0.img_attn.qkv.weight"})), HasSubstr("Flux"));
  EXPECT_THAT(refusal(foreign("a/unknown.safetensors", {"x"})), HasSubstr("part of no Stable Diffusion 3.5 model: x"));

  // No weights at all.
  EXPECT_THAT(refusal(text("lfs.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")),
              AllOf(HasSubstr("lfs.safetensors"), HasSubstr("git lfs pull")));
  EXPECT_THAT(refusal(text("page.safetensors", "<!DOCTYPE html><html></html>")), HasSubstr("web page"));
  for (const char* ending : {".ckpt", ".bin", ".pt", ".pth"}) {
    EXPECT_THAT(refusal(text(std::string("model") + ending, std::string(300, 'q'))),
                AllOf(HasSubstr("pickle"), HasSubstr("can run code"), HasSubstr("convert it to safetensors")));
  }
  EXPECT_THAT(refusal(text("model.gguf", "GGUF\x03")), HasSubstr("GGUF"));
  EXPECT_THAT(refusal(root_ / "nowhere"), HasSubstr("nowhere: no such file or folder"));
  fs::create_directory(root_ / "empty");
  EXPECT_THAT(refusal(root_ / "empty"), HasSubstr("neither model_index.json"));

  // Shards.
  const fs::path sharded = diffusers_folder("sharded", DType::kBF16, "", true);
  const fs::path shard = sharded / "transformer/diffusion_pytorch_model-00002-of-00002.safetensors";
  fs::resize_file(shard, fs::file_size(shard) / 2);
  EXPECT_THAT(refusal(sharded), AllOf(HasSubstr("00002-of-00002"), HasSubstr("cut short; download it again")));
  fs::remove(shard);
  EXPECT_THAT(refusal(sharded), AllOf(HasSubstr("00002-of-00002"), HasSubstr("download this shard too")));

  // Parts that are missing, twice there, or another one's.
  const fs::path transformer = one_part("transformer.safetensors", Part::kTransformer, "");
  const fs::path clip_l = one_part("clip_l.safetensors", Part::kTextEncoder, "");
  const fs::path clip_g = one_part("clip_g.safetensors", Part::kTextEncoder2, "");
  const fs::path t5 = one_part("t5xxl.safetensors", Part::kTextEncoder3, "");
  const fs::path vae = one_part("vae.safetensors", Part::kVae, "");
  ModelFiles files(transformer);
  EXPECT_THAT(refusal(files), AllOf(HasSubstr("--vae: "), HasSubstr("holds no autoencoder: give it with --vae FILE")));
  files.vae = vae;
  EXPECT_THAT(refusal(files), HasSubstr("give it with --clip-l FILE"));
  files.clip_l = clip_l;
  EXPECT_THAT(refusal(files), HasSubstr("give it with --clip-g FILE"));
  files.clip_g = clip_g;
  EXPECT_THAT(refusal(files), HasSubstr("give it with --t5 FILE, or --t5 none"));
  files.without_t5 = true;
  EXPECT_EQ(refusal(files), "opened");
  files.t5 = t5;
  EXPECT_THAT(refusal(files), HasSubstr("--t5: is both a file and none"));
  files.without_t5 = false;
  EXPECT_EQ(refusal(files), "opened");
  EXPECT_THAT(refusal(clip_l), HasSubstr("holds no Stable Diffusion 3.5 transformer (only: CLIP-L text encoder)"));
  ModelFiles wrong = files;
  wrong.clip_l = t5;
  EXPECT_THAT(refusal(wrong), AllOf(HasSubstr("--clip-l: "), HasSubstr("holds no CLIP-L text encoder, but: T5")));
  wrong.clip_l = root_ / "none";
  EXPECT_THAT(refusal(wrong), HasSubstr("--clip-l: "));
  std::vector<Stored> real_g;
  for (const TensorShape& tensor : weights::clip_tensors(
           {.layers = 31, .width = 64, .feed_forward = 1, .projection = 64, .vocabulary = 1, .positions = 1})) {
    real_g.push_back({tensor.name, DType::kF16, tensor.shape, encode(Model::values(Part::kVae, tensor), DType::kF16)});
  }
  write(root_ / "real_g.safetensors", real_g);
  wrong.clip_l = root_ / "real_g.safetensors";
  EXPECT_THAT(refusal(wrong), HasSubstr("holds no CLIP-L text encoder, but: CLIP-G"));
  wrong.clip_l = clip_g;
  EXPECT_THAT(refusal(wrong), HasSubstr("projects to 128"));
  wrong = files;
  std::vector<Stored> other_vae;
  for (const TensorShape& tensor :
       weights::vae_tensors({.channels = {32, 64}, .layers_per_block = 1, .latent_channels = 4})) {
    other_vae.push_back(
        {tensor.name, DType::kF16, tensor.shape, encode(Model::values(Part::kVae, tensor), DType::kF16)});
  }
  write(root_ / "vae4.safetensors", other_vae);
  wrong.vae = root_ / "vae4.safetensors";
  EXPECT_THAT(refusal(wrong), AllOf(HasSubstr("vae4.safetensors"), HasSubstr("4 latent channels"), HasSubstr("--vae")));

  // Tokenizers.
  const auto opened = weights::ModelCheckpoint::open(files);
  ASSERT_TRUE(opened.ok());
  EXPECT_THAT(opened->tokenizer_folder("tokenizer").status().to_string(),
              AllOf(HasSubstr("--tokenizers"), HasSubstr("tokenizer_2/"), HasSubstr("diffusers folder")));
  files.tokenizers = root_;
  EXPECT_THAT(weights::ModelCheckpoint::open(files)->tokenizer_folder("tokenizer").status().to_string(),
              HasSubstr("no such folder"));
}

TEST_P(Layouts, the_complete_names_of_a_released_model_load_at_reduced_width) {
  const bool medium = GetParam() > 0;
  const Model full{.blocks = medium ? 24 : 38, .dual_blocks = medium ? 13 : 0, .width = 64};
  const weights::NameSizes sizes{.blocks = static_cast<int>(full.blocks), .vae_levels = 4};
  const std::size_t original_count = medium ? 665 : 923, diffusers_count = medium ? 909 : 1227;
  const auto device = device::create_cpu_device(1);
  for (const bool original : {true, false}) {
    const auto canonical = full.table(Part::kTransformer);
    const auto table = original ? weights::in_original_layout(Part::kTransformer, canonical, sizes) : canonical;
    EXPECT_EQ(table.size(), original ? original_count : diffusers_count);
    std::vector<Stored> file;
    for (const TensorShape& tensor : table) {
      file.push_back(
          {tensor.name, DType::kBF16, tensor.shape, encode(Model::values(Part::kTransformer, tensor), DType::kBF16)});
    }
    model_.blocks = 2;
    ModelFiles files = all_in_one("others.safetensors", {});
    write(root_ / "full.safetensors", file);
    files.vae = files.clip_l = files.clip_g = files.t5 = files.model;
    files.model = root_ / "full.safetensors";
    const auto opened = weights::ModelCheckpoint::open(files);
    ASSERT_TRUE(opened.ok()) << opened.status().to_string();
    auto part = opened->open_part(Part::kTransformer);
    ASSERT_TRUE(part.ok());
    const auto loaded = models::Mmdit::load(*device, std::move(*part), DType::kF32);
    EXPECT_TRUE(loaded.ok()) << loaded.status().to_string();

    // One name less, and one more.
    file.back().name += "s";
    write(root_ / "full.safetensors", file);
    auto wrong = weights::ModelCheckpoint::open(files)->open_part(Part::kTransformer);
    ASSERT_TRUE(wrong.ok());
    const auto refused = models::Mmdit::load(*device, std::move(*wrong), DType::kF32);
    EXPECT_THAT(refused.status().message(), AllOf(HasSubstr("1 missing: " + table.back().name),
                                                  HasSubstr("1 not part of this model: " + table.back().name + "s")));
  }
}

TEST_P(Layouts, findings_say_what_was_told_from_what) {
  model_.dual_blocks = 0;  // Turbo has none
  const auto open = [](const ModelFiles& files) { return weights::ModelCheckpoint::open(files).value(); };
  const auto plain = open(all_in_one("sd3.5.safetensors", {DType::kE4M3, Scales::kOld}));
  EXPECT_EQ(plain.family(), weights::Family::kUnknown);
  EXPECT_THAT(plain.findings(), AllOf(HasSubstr("2 blocks of width 128"), HasSubstr("no released size"),
                                      HasSubstr("original names behind model.diffusion_model."),
                                      HasSubstr("scaled FP8"), HasSubstr("sd3.5.safetensors")));
  ModelFiles turbo = all_in_one("sd3.5_large_Turbo.safetensors", {});
  EXPECT_EQ(open(turbo).family(), weights::Family::kLargeTurbo);
  EXPECT_THAT(open(turbo).findings(), HasSubstr("'turbo' is in the name; --family large if that is wrong"));
  turbo.family = weights::Family::kLarge;
  turbo.without_t5 = true;
  EXPECT_EQ(open(turbo).family(), weights::Family::kLarge);
  EXPECT_THAT(open(turbo).findings(), AllOf(HasSubstr("--family says so"), HasSubstr("text_encoder_3: none")));
  EXPECT_EQ(open(turbo).name(), "sd3.5_large_Turbo");
}

TEST_P(Layouts, without_t5_its_tokens_are_zeros) {
  ModelFiles files = all_in_one("model.safetensors", {});
  const Drawn with = draw(files, pipeline::LoadOptions::Precision::kF32);
  files.without_t5 = true;
  const Drawn without = draw(files, pipeline::LoadOptions::Precision::kF32);
  // The same as a diffusers folder whose model_index.json leaves text_encoder_3 out.
  const fs::path folder = diffusers_folder("folder", DType::kBF16, "", false);
  std::ifstream stored(folder / "model_index.json");
  std::stringstream text;
  text << stored.rdbuf();
  boost::json::object index = boost::json::parse(text.str()).as_object();
  index["text_encoder_3"] = {nullptr, nullptr};
  write_json(folder / "model_index.json", index);
  EXPECT_NE(with.latents, without.latents);
  EXPECT_EQ(without.latents, draw(folder, pipeline::LoadOptions::Precision::kF32).latents);
}

INSTANTIATE_TEST_SUITE_P(AnyModel, BadFiles, ::testing::Values(0));
// Blocks that attend twice: none in Large and Large Turbo, the first ones in Medium.
INSTANTIATE_TEST_SUITE_P(Reduced, Layouts, ::testing::Values(0, 1));

}  // namespace
}  // namespace octavo::parity
