#include "models/autoencoder_kl/config.h"

#include "weights/checkpoint.h"

namespace octavo::models {

Result<AutoencoderConfig> AutoencoderConfig::from_json(const boost::json::object& config, const std::string& file) {
  using weights::config_int;
  AutoencoderConfig result;
  const auto* channels = config.if_contains("block_out_channels");
  if (channels == nullptr || !channels->is_array() || channels->get_array().empty() ||
      channels->get_array().size() > 8) {
    return data_corruption(file, "block_out_channels is not a list of 1 to 8 integers");
  }
  OCTAVO_ASSIGN_OR_RETURN(const auto groups, config_int(config, "norm_num_groups", file));
  OCTAVO_ASSIGN_OR_RETURN(const auto layer_count, config_int(config, "layers_per_block", file));
  OCTAVO_ASSIGN_OR_RETURN(result.latent_channels, config_int(config, "latent_channels", file));
  OCTAVO_ASSIGN_OR_RETURN(const double scaling, weights::config_number(config, "scaling_factor", file));
  constexpr std::int64_t kMost = 1 << 16;
  for (const auto& value : channels->get_array()) {
    if (!value.is_int64() || value.get_int64() < 1 || value.get_int64() > kMost || groups < 1 ||
        value.get_int64() % groups != 0) {
      return data_corruption(file, fmt::format("block_out_channels must be multiples of norm_num_groups ({})", groups));
    }
    result.channels.push_back(value.get_int64());
  }
  if (layer_count < 1 || layer_count > 64 || result.latent_channels < 1 || result.latent_channels > kMost ||
      !(scaling > 0)) {
    return invalid_argument(file, fmt::format("{} layers per block, {} latent channels, scaling {} are not possible",
                                              layer_count, result.latent_channels, scaling));
  }
  result.groups = static_cast<int>(groups);
  result.layers_per_block = static_cast<int>(layer_count);
  result.scaling_factor = static_cast<float>(scaling);
  result.shift_factor = 0.0f;
  if (const auto* shift = config.if_contains("shift_factor"); shift != nullptr && !shift->is_null()) {
    OCTAVO_ASSIGN_OR_RETURN(const double value, weights::config_number(config, "shift_factor", file));
    result.shift_factor = static_cast<float>(value);
  }
  for (const char* quant : {"use_quant_conv", "use_post_quant_conv"}) {
    const auto* value = config.if_contains(quant);
    if (value == nullptr || !value->is_bool() || value->get_bool()) {
      return invalid_argument(file, std::string(quant) + " must be false (Stable Diffusion 3 autoencoders have none)");
    }
  }
  return result;
}

}  // namespace octavo::models
