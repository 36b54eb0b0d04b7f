// The loaded model's name as A1111's lists show it.
#pragma once

#include <string>

#include "generation/generation.h"

namespace octavo::api::a1111 {

/// "octavo-tiny [0123456789]", without brackets when the hash is unknown.
std::string model_title(const generation::Capabilities& capabilities);

/// Any name A1111 would accept for it: title, name, hash.
bool names_model(const std::string& given, const generation::Capabilities& capabilities);

}  // namespace octavo::api::a1111
