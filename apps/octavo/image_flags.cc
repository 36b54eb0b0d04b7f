#include "image_flags.h"

#include <array>
#include <filesystem>
#include <fstream>
#include <memory>
#include <utility>
#include <vector>

#include "image/codec.h"

namespace octavo::app {
namespace {

namespace fs = std::filesystem;

/// Refuses by the file's size before reading it.
Result<std::shared_ptr<const image::Image>> read_picture(const std::string& path, const std::string& flag) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return not_found(flag, path + " is not a file");
  const auto size = fs::file_size(path, error);
  const image::DecodeLimits limits;
  if (error || size > limits.max_file_bytes) {
    return resource_exhausted(flag, fmt::format("{} is larger than {} MiB", path, limits.max_file_bytes >> 20));
  }
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(size));
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!file.good()) return data_corruption(flag, path + " cannot be read");
  OCTAVO_ASSIGN_OR_RETURN(image::Image picture, image::decode(bytes, flag + " " + path, limits));
  return std::make_shared<const image::Image>(std::move(picture));
}

template <typename Value, std::size_t kCount>
Status choose(const std::array<std::pair<std::string_view, Value>, kCount>& names, const std::string& name,
              const std::string& flag, Value& target) {
  std::string known;
  for (const auto& [word, value] : names) {
    if (word == name) {
      target = value;
      return {};
    }
    known += (known.empty() ? "" : ", ") + std::string(word);
  }
  return invalid_argument(flag, "'" + name + "' is not one of " + known);
}

constexpr std::array<std::pair<std::string_view, image::FitMode>, 3> kResizeModes = {{
    {"stretch", image::FitMode::kStretch},
    {"crop", image::FitMode::kCrop},
    {"fill", image::FitMode::kFill},
}};

using generation::MaskedContent;
constexpr std::array<std::pair<std::string_view, MaskedContent>, 3> kMaskedContents = {{
    {"original", MaskedContent::kOriginal},
    {"noise", MaskedContent::kLatentNoise},
    {"nothing", MaskedContent::kLatentNothing},
}};

}  // namespace

void add_image_flags(CLI::App& command, ImageFlags& flags, generation::GenerationRequest& request) {
  const char* const group = "Pictures as input";
  command.add_option("--init", flags.init, "PNG, JPEG or WebP to start from")->group(group);
  command.add_option("--strength", request.strength, "How much of the picture may change, above 0 to 1")
      ->capture_default_str()
      ->group(group);
  command.add_option("--resize-mode", flags.resize_mode, "How --init becomes the size drawn: stretch, crop, fill")
      ->capture_default_str()
      ->group(group);
  command.add_option("--mask", flags.mask, "Picture of what to repaint: white, or transparent where it has alpha")
      ->group(group);
  command.add_flag("--mask-invert", request.mask_invert, "Repaint what is black instead")->group(group);
  command.add_option("--mask-blur", request.mask_blur, "Softness of the mask's border in pixels")
      ->capture_default_str()
      ->group(group);
  command
      .add_flag("--only-masked", request.only_masked, "Draw the mask's surroundings at full size and paste them back")
      ->group(group);
  command.add_option("--padding", request.mask_padding, "Pixels around the mask that --only-masked looks at")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--masked-content", flags.masked_content,
                  "What the repainted area starts from: original, noise, nothing")
      ->capture_default_str()
      ->group(group);
}

Status read_image_flags(const CLI::App& command, const ImageFlags& flags, generation::GenerationRequest& request) {
  OCTAVO_RETURN_IF_ERROR(choose(kResizeModes, flags.resize_mode, "--resize-mode", request.resize_mode));
  OCTAVO_RETURN_IF_ERROR(choose(kMaskedContents, flags.masked_content, "--masked-content", request.masked_content));
  if (flags.init.empty()) {
    for (const char* flag : {"--mask", "--strength", "--only-masked"}) {
      if (command.count(flag) > 0) return invalid_argument(flag, "needs --init, the picture to start from");
    }
    return {};
  }
  OCTAVO_ASSIGN_OR_RETURN(request.init_image, read_picture(flags.init, "--init"));
  if (!flags.mask.empty()) {
    OCTAVO_ASSIGN_OR_RETURN(request.mask, read_picture(flags.mask, "--mask"));
  }
  return {};
}

std::string image_flag_of(const std::string& field) {
  if (field == "init_image") return "--init";
  if (field == "mask_blur") return "--mask-blur";
  if (field == "mask_padding") return "--padding";
  return {};
}

}  // namespace octavo::app
