#include "sampling/noise_stream.h"

#include "sampling/row_lookup.h"

namespace octavo::sampling {
namespace {

template <typename Generator>
Result<Generator> take_generator(std::span<const std::byte>& bytes) {
  if (bytes.size() < Generator::kStateBytes) return data_corruption("noise state", "is cut off");
  const auto state = bytes.first(Generator::kStateBytes);
  bytes = bytes.subspan(Generator::kStateBytes);
  return Generator::from_bytes(state);
}

}  // namespace

Result<NoiseSource> parse_noise_source(std::string_view name) {
  const std::string lower = ascii_lower(name);
  if (lower.empty() || lower == "cpu") return NoiseSource::kTorchCpu;
  if (lower == "nv") return NoiseSource::kPhilox;
  return invalid_argument("noise_source", "must be cpu or nv, not '" + lower.substr(0, 64) + "'");
}

NoiseStream::NoiseStream(NoiseSource source, std::int64_t seed)
    : generator_(source == NoiseSource::kTorchCpu ? Generator(TorchCpuGenerator(static_cast<std::uint64_t>(seed)))
                                                  : Generator(PhiloxGenerator(static_cast<std::uint64_t>(seed)))) {}

NoiseSource NoiseStream::source() const {
  return std::holds_alternative<TorchCpuGenerator>(generator_) ? NoiseSource::kTorchCpu : NoiseSource::kPhilox;
}

void NoiseStream::normal(std::span<float> out) {
  std::visit([out](auto& generator) { generator.normal(out); }, generator_);
}

void NoiseStream::append_bytes(std::vector<std::byte>& out) const {
  out.push_back(static_cast<std::byte>(source()));
  std::visit([&out](const auto& generator) { generator.append_bytes(out); }, generator_);
}

Result<NoiseStream> NoiseStream::take_from(std::span<const std::byte>& bytes) {
  if (bytes.empty()) return data_corruption("noise state", "is cut off");
  const std::byte source = bytes.front();
  bytes = bytes.subspan(1);
  if (source == static_cast<std::byte>(NoiseSource::kTorchCpu)) {
    OCTAVO_ASSIGN_OR_RETURN(const auto generator, take_generator<TorchCpuGenerator>(bytes));
    return NoiseStream(Generator(generator));
  }
  if (source == static_cast<std::byte>(NoiseSource::kPhilox)) {
    OCTAVO_ASSIGN_OR_RETURN(const auto generator, take_generator<PhiloxGenerator>(bytes));
    return NoiseStream(Generator(generator));
  }
  return data_corruption("noise state", "names an unknown source");
}

}  // namespace octavo::sampling
