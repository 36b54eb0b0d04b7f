// `octavo quantize --policy auto`: measures what each product costs the model when it alone is in 8 bits.
#pragma once

#include <filesystem>
#include <string>

#include "base/status.h"
#include "calibrate_recipe.h"
#include "quantize/recipe.h"
#include "weights/export/tensor_source.h"
#include "write_checkpoint.h"

namespace octavo::app {

/// Buys the worst products of a calibrated recipe back into 16 bits under `budget` (quantize::parse_budget). Each is
/// written alone into the folder `scratch`, loaded, and asked for velocities at latents that the 16-bit model went
/// through; with a transformer over 1 GB, for which that would take hours, products are ranked by their own output
/// error instead. `explain` prints the ranking. Ctrl-C stops it (kCancelled); `scratch` is gone in the end.
Status apply_auto_policy(quantize::Recipe& recipe, const weights::TensorSource& source,
                         const weights::ModelFiles& files, const CalibrationFlags& flags, const std::string& budget,
                         const FolderExtras& extras, const std::filesystem::path& scratch, bool explain);

}  // namespace octavo::app
