// The flags of pictures as input: --init, --mask and what belongs to them.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "generation/generation.h"

namespace octavo::app {

struct ImageFlags {
  std::string init;
  std::string mask;
  std::string resize_mode = "stretch";
  std::string masked_content = "original";
};

/// Adds the flags to `command`; both targets must outlive it.
void add_image_flags(CLI::App& command, ImageFlags& flags, generation::GenerationRequest& request);

/// Reads the files that the flags name into `request`. Errors name the flag and the file.
Status read_image_flags(const CLI::App& command, const ImageFlags& flags, generation::GenerationRequest& request);

/// The flag behind a request's field, "" when it is none of these.
std::string image_flag_of(const std::string& field);

}  // namespace octavo::app
