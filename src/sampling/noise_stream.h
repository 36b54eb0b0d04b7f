// One picture's noise: which generator, and where it stands.
#pragma once

#include <string_view>
#include <variant>

#include "sampling/noise.h"
#include "sampling/philox.h"

namespace octavo::sampling {

enum class NoiseSource {
  kTorchCpu,  // "cpu": torch.Generator("cpu"), what diffusers' examples and ComfyUI use
  kPhilox,    // "nv": torch.Generator("cuda"), A1111's random source NV
};

/// "cpu" or "nv", any case; "" = "cpu". kInvalidArgument (subject "noise_source") for anything else.
Result<NoiseSource> parse_noise_source(std::string_view name);

/// A value: copies continue independently. One thread at a time.
class NoiseStream {
 public:
  NoiseStream(NoiseSource source, std::int64_t seed);

  NoiseSource source() const;
  /// The stream's next values: standard normal, as one call of torch.randn(out.size()) gives them.
  void normal(std::span<float> out);

  /// A byte for the source, then the generator's own.
  void append_bytes(std::vector<std::byte>& out) const;
  /// Takes a stream from the front of `bytes`. kDataCorruption when there is none.
  static Result<NoiseStream> take_from(std::span<const std::byte>& bytes);

  bool operator==(const NoiseStream& other) const = default;

 private:
  using Generator = std::variant<TorchCpuGenerator, PhiloxGenerator>;
  explicit NoiseStream(Generator generator) : generator_(generator) {}
  Generator generator_;
};

}  // namespace octavo::sampling
