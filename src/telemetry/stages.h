// Stage names: the same in metrics, logs, benchmarks and (later) traces.
#pragma once

#include <array>
#include <string_view>

namespace octavo::telemetry {

inline constexpr std::string_view kQueueWait = "queue_wait";
inline constexpr std::string_view kEncodeText = "encode_text";
inline constexpr std::string_view kEncodeInput = "encode_input";  // init image to latents
inline constexpr std::string_view kDenoise = "denoise";
inline constexpr std::string_view kDecode = "decode";
inline constexpr std::string_view kEncodeImage = "encode_image";
inline constexpr std::string_view kTotal = "total";
inline constexpr std::array kStages = {kQueueWait, kEncodeText, kEncodeInput, kDenoise, kDecode, kEncodeImage, kTotal};

}  // namespace octavo::telemetry
