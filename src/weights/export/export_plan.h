// What a checkpoint of a layout consists of on the disk: files, and for each stored tensor the canonical ones behind
// it. Nothing is read or written here.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/quantized.h"
#include "weights/export/tensor_source.h"
#include "weights/safetensors_writer.h"

namespace octavo::weights {

enum class CheckpointLayout {
  kDiffusers,      // folder with a folder a part, sharded when large
  kOriginal,       // one file as Stability publishes them: transformer, autoencoder and, unless left out, text encoders
  kSeparateParts,  // folder: transformer and autoencoder in one file, clip_l, clip_g and t5xxl in files of their own
  kComfyUi,        // one file as ComfyUI saves them; FP8 is stored with scales
};
/// The words of the command line, in the order of the enumeration.
inline constexpr std::array<std::string_view, 4> kLayoutWords = {"diffusers", "original", "parts", "comfyui"};
Result<CheckpointLayout> parse_checkpoint_layout(const std::string& word, const std::string& flag);
/// True when the layout is a folder, false when it is one file.
bool is_folder(CheckpointLayout layout);

/// How ComfyUI's scaled FP8 is spelled: with scale_weight and the scaled_fp8 marker, or (since late 2025) with
/// weight_scale and a comfy_quant tensor a layer.
enum class ScaledFp8 { kNone, kOld, kNew };

/// How the weight [N, K] of one layer is stored in 8 bits (quantization/provenance.h has the names of its tensors).
struct QuantizedLayer {
  DType format = DType::kE4M3;  // kE4M3 | kE5M2 | kI8
  ScaleGrain grain = ScaleGrain::kRow;
  std::optional<float> input_scale;     // of a static input
  std::vector<float> input_multiplier;  // [K], or empty
  std::vector<std::int32_t> outliers;   // ascending columns that are stored apart, in bf16
};

struct QuantizedPart {
  std::map<std::string, QuantizedLayer, std::less<>> layers;  // by canonical name without ".weight"
  std::map<std::string, std::string> metadata;                // of the part's files, beside ExportOptions::metadata
};

struct ExportOptions {
  CheckpointLayout layout = CheckpointLayout::kDiffusers;
  std::optional<DType> dtype;  // nothing: each tensor keeps its own
  /// Weights of the transformer's and T5's linear layers in E4M3 with one scale a tensor, amax / 448; all else as
  /// `dtype`, or as it is when it has 16 bits, or bf16. Only with kComfyUi.
  ScaledFp8 scaled = ScaledFp8::kNone;
  /// Layers in 8 bits; of all parts, what has 16 bits stays, matrices of f32 become bf16, vectors keep their type, and
  /// NaN or infinity is an error. Only with kDiffusers.
  std::map<Part, QuantizedPart> quantized;
  bool text_encoders = true;  // false leaves them out (kOriginal)
  std::string base_name;      // of the main file of kSeparateParts, without extension
  /// Limit of one file of the diffusers layout; 0 = the originals': 10 GB by diffusers, 5 GB by transformers.
  std::size_t shard_bytes = 0;
  std::map<std::string, std::string> metadata;  // of every file
};

/// Consecutive elements of a canonical tensor.
struct Piece {
  std::size_t part = 0;
  std::size_t tensor = 0;
  std::int64_t begin = 0;
  std::int64_t count = 0;
};

struct PlannedTensor {
  enum class Kind {
    kValues,        // the pieces, converted
    kScaledWeight,  // the pieces divided by their scale, in E4M3
    kScale,         // f32: the scale of the kScaledWeight before it
    kConstant,      // `constant`
    kCodes,         // the pieces (one whole weight) as `layer` says
    kCodeScales,    // f32: the scales of the kCodes before it
    kOutliers,      // bf16: the columns that the kCodes before it left out
  };
  StreamedTensor stored;
  Kind kind = Kind::kValues;
  DType dtype = DType::kF32;  // of kValues
  std::vector<Piece> pieces;  // in the order of the stored rows
  std::string constant;
  QuantizedLayer layer;  // of kCodes
};

struct PlannedFile {
  std::string path;  // below the checkpoint's folder; empty when the checkpoint is this file
  std::vector<PlannedTensor> tensors;
  std::map<std::string, std::string> metadata;
  std::size_t byte_count() const;  // of the tensors
};

struct ExportPlan {
  std::vector<PlannedFile> files;
  std::map<std::string, std::string> texts;  // path below the folder to content: configurations and indexes
  bool check_finite = false;  // NaN or infinity in kValues is an error, as it always is in what is scaled
  std::size_t byte_count() const;
  /// Stored weights with scales.
  std::size_t scaled_count() const;
};

/// kInvalidArgument when the layout cannot hold what the source has (scaled FP8 outside ComfyUI's layout, a part that
/// is missing). A layer of `options.quantized` must be a matrix of its part (checked).
Result<ExportPlan> plan_export(const std::vector<SourcePart>& parts, const ExportOptions& options);

/// The layers that ComfyUI's scaled files hold in FP8: every Linear of the transformer (not the patch convolution, not
/// the position table) and of T5 (not the embedding, not the position bias).
bool is_scaled_layer(Part part, const SourceTensor& tensor);

}  // namespace octavo::weights
