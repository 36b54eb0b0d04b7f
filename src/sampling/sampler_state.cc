#include "sampling/sampler_state.h"

#include <bit>
#include <cmath>
#include <limits>

namespace octavo::sampling {
namespace {

// Layout, little endian: magic, version, sampler name, sigmas, step, eta, s_noise, shape, noise streams, latents,
// history, FNV-1a of everything before it. Lists carry their length first.
constexpr std::uint32_t kMagic = 0x5353434F;  // "OCSS"
constexpr std::uint32_t kVersion = 2;
constexpr std::size_t kChecksumBytes = 8;
constexpr std::size_t kMaxNameBytes = 64;
constexpr std::size_t kMaxHistory = 16;

std::uint64_t fnv1a(std::span<const std::byte> bytes) {
  std::uint64_t hash = 0xCBF29CE484222325u;
  for (const std::byte byte : bytes) hash = (hash ^ static_cast<std::uint64_t>(byte)) * 0x100000001B3u;
  return hash;
}

class Writer {
 public:
  void u32(std::uint32_t value) { little_endian(value, 4); }
  void u64(std::uint64_t value) { little_endian(value, 8); }
  void text(std::string_view value) {
    u32(static_cast<std::uint32_t>(value.size()));
    for (const char c : value) bytes_.push_back(static_cast<std::byte>(c));
  }
  void floats(std::span<const float> values) {
    u64(values.size());
    for (const float value : values) u32(std::bit_cast<std::uint32_t>(value));
  }
  std::vector<std::byte>& bytes() { return bytes_; }

 private:
  void little_endian(std::uint64_t value, int count) {
    for (int i = 0; i < count; ++i) bytes_.push_back(static_cast<std::byte>(value >> (8 * i)));
  }
  std::vector<std::byte> bytes_;
};

/// Reads what Writer wrote; after the first impossible read ok() is false and every value is zero or empty.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  bool ok() const { return ok_; }
  bool at_end() const { return bytes_.empty(); }
  /// What is not read yet, for readers of their own.
  std::span<const std::byte>& rest() { return bytes_; }
  std::uint32_t u32() { return static_cast<std::uint32_t>(little_endian(4)); }
  std::uint64_t u64() { return little_endian(8); }
  std::span<const std::byte> take(std::uint64_t count) {
    if (!ok_ || count > bytes_.size()) {
      ok_ = false;
      return {};
    }
    const auto taken = bytes_.first(static_cast<std::size_t>(count));
    bytes_ = bytes_.subspan(static_cast<std::size_t>(count));
    return taken;
  }
  std::string text(std::size_t max_bytes) {
    const std::uint32_t count = u32();
    if (count > max_bytes) ok_ = false;
    const auto taken = take(count);
    return {reinterpret_cast<const char*>(taken.data()), taken.size()};
  }
  std::vector<float> floats() {
    const std::uint64_t count = u64();
    if (count > bytes_.size() / 4) ok_ = false;  // before the product below can wrap, and before memory is asked for
    Reader values(take(ok_ ? 4 * count : 0));
    std::vector<float> result(values.bytes_.size() / 4);
    for (float& value : result) value = std::bit_cast<float>(values.u32());
    return result;
  }

 private:
  std::uint64_t little_endian(int count) {
    const auto taken = take(static_cast<std::uint64_t>(count));
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < taken.size(); ++i) value |= static_cast<std::uint64_t>(taken[i]) << (8 * i);
    return value;
  }
  std::span<const std::byte> bytes_;
  bool ok_ = true;
};

Status corrupt(std::string message) { return data_corruption("sampler state", std::move(message)); }

Status check_sigmas(const std::vector<float>& sigmas) {
  if (sigmas.size() < 2 || sigmas.back() != 0.0f) return corrupt("sigmas do not end in 0 after at least one step");
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    if (!std::isfinite(sigmas[i]) || !(sigmas[i] > sigmas[i + 1])) return corrupt("sigmas do not decrease");
  }
  return {};
}

}  // namespace

std::vector<std::byte> SamplerState::to_bytes() const {
  OCTAVO_CHECK(sampler.size() <= kMaxNameBytes && history.size() <= kMaxHistory && shape.rank() == 4,
               "state of sampler '{}' with {} history tensors, shape {}", sampler, history.size(), shape.to_string());
  Writer writer;
  writer.u32(kMagic);
  writer.u32(kVersion);
  writer.text(sampler);
  writer.floats(sigmas);
  writer.u32(static_cast<std::uint32_t>(step));
  writer.u32(std::bit_cast<std::uint32_t>(options.eta));
  writer.u32(std::bit_cast<std::uint32_t>(options.s_noise));
  for (int axis = 0; axis < shape.rank(); ++axis) writer.u64(static_cast<std::uint64_t>(shape[axis]));
  writer.u32(static_cast<std::uint32_t>(noise.size()));
  for (const NoiseStream& stream : noise) stream.append_bytes(writer.bytes());
  writer.floats(latents);
  writer.u32(static_cast<std::uint32_t>(history.size()));
  for (const std::vector<float>& tensor : history) writer.floats(tensor);
  writer.u64(fnv1a(writer.bytes()));
  return std::move(writer.bytes());
}

Result<SamplerState> SamplerState::from_bytes(std::span<const std::byte> bytes) {
  if (bytes.size() < kChecksumBytes) return corrupt(fmt::format("{} bytes are too few", bytes.size()));
  const auto body = bytes.first(bytes.size() - kChecksumBytes);
  if (Reader(bytes.last(kChecksumBytes)).u64() != fnv1a(body)) return corrupt("the checksum does not match");

  Reader reader(body);
  if (reader.u32() != kMagic) return corrupt("not a sampler state");
  if (const std::uint32_t version = reader.u32(); version != kVersion) {
    return corrupt(fmt::format("version {}, this program reads {}", version, kVersion));
  }
  SamplerState state;
  state.sampler = reader.text(kMaxNameBytes);
  state.sigmas = reader.floats();
  const std::uint32_t step = reader.u32();
  state.options.eta = std::bit_cast<float>(reader.u32());
  state.options.s_noise = std::bit_cast<float>(reader.u32());
  std::uint64_t elements = 1;
  for (int axis = 0; axis < 4; ++axis) {
    const std::uint64_t extent = reader.u64();
    // No extent and no product can be more than the floats that are there.
    if (extent == 0 || extent > body.size() || elements > body.size() / extent) return corrupt("impossible shape");
    elements *= extent;
    state.shape.append(static_cast<std::int64_t>(extent));
  }
  const std::uint32_t streams = reader.u32();
  if (streams != static_cast<std::uint64_t>(state.shape[0])) return corrupt("pictures and noise sources differ");
  for (std::uint32_t i = 0; i < streams && reader.ok(); ++i) {
    OCTAVO_ASSIGN_OR_RETURN(const NoiseStream stream, NoiseStream::take_from(reader.rest()));
    state.noise.push_back(stream);
  }
  state.latents = reader.floats();
  const std::uint32_t history = reader.u32();
  if (history > kMaxHistory) return corrupt(fmt::format("{} history tensors", history));
  for (std::uint32_t i = 0; i < history; ++i) state.history.push_back(reader.floats());
  if (!reader.ok() || !reader.at_end()) return corrupt("its lists do not fit its length");

  OCTAVO_RETURN_IF_ERROR(check_sigmas(state.sigmas));
  if (!(state.options.eta >= 0.0f && state.options.eta <= 1.0f) || !std::isfinite(state.options.s_noise)) {
    return corrupt("impossible sampler options");
  }
  if (step > static_cast<std::uint32_t>(state.steps()))
    return corrupt(fmt::format("step {} of {}", step, state.steps()));
  state.step = static_cast<int>(step);
  if (state.latents.size() != elements) return corrupt("latents do not have the shape's elements");
  for (const auto& tensor : state.history) {
    if (tensor.size() != elements) return corrupt("history does not have the shape's elements");
  }
  return state;
}

SamplerState initial_state(const SamplerRow& row, const Schedule& schedule, const SamplerOptions& options,
                           const Shape& shape, std::span<const NoiseOptions> pictures,
                           std::span<const float> image_latents) {
  OCTAVO_CHECK(shape.rank() == 4 && shape.element_count() > 0, "latents {}", shape.to_string());
  OCTAVO_CHECK(check_sigmas(schedule.sigmas).ok(), "{}", check_sigmas(schedule.sigmas).message());
  OCTAVO_CHECK(pictures.size() == static_cast<std::size_t>(shape[0]), "{} noises for latents {}", pictures.size(),
               shape.to_string());
  SamplerState state;
  state.sampler = row.name;
  state.sigmas = schedule.sigmas;
  state.options = options;
  state.shape = shape;
  state.latents.resize(static_cast<std::size_t>(shape.element_count()));
  OCTAVO_CHECK(image_latents.empty() || image_latents.size() == state.latents.size(), "an image of {} for latents {}",
               image_latents.size(), shape.to_string());
  const Shape picture_shape{shape[1], shape[2], shape[3]};
  const std::size_t picture_elements = state.latents.size() / pictures.size();
  for (std::size_t i = 0; i < pictures.size(); ++i) {
    const auto values = std::span(state.latents).subspan(i * picture_elements, picture_elements);
    state.noise.push_back(draw_initial_noise(pictures[i], picture_shape, values));
  }
  const float sigma = schedule.sigmas.front();
  for (float& value : state.latents) value *= sigma;
  for (std::size_t i = 0; i < image_latents.size(); ++i) state.latents[i] += (1.0f - sigma) * image_latents[i];
  if (row.needs_finite_snr && sigma > schedule.below_one) state.sigmas.front() = schedule.below_one;
  state.history.assign(static_cast<std::size_t>(row.history_count), std::vector<float>(state.latents.size(), 0.0f));
  return state;
}

Result<SamplerState> join_states(std::span<const SamplerState* const> states) {
  if (states.empty()) return invalid_argument("states", "there are none");
  SamplerState joined = *states.front();
  for (const SamplerState* state : states.subspan(1)) {
    const bool alike = state->sampler == joined.sampler && state->sigmas == joined.sigmas &&
                       state->step == joined.step && state->options == joined.options &&
                       state->history.size() == joined.history.size() && state->shape.rank() == 4 &&
                       Shape{state->shape[1], state->shape[2], state->shape[3]} ==
                           Shape{joined.shape[1], joined.shape[2], joined.shape[3]};
    if (!alike) return invalid_argument("states", "pictures at different steps cannot be drawn together");
    joined.shape = Shape{joined.shape[0] + state->shape[0], joined.shape[1], joined.shape[2], joined.shape[3]};
    joined.noise.insert(joined.noise.end(), state->noise.begin(), state->noise.end());
    joined.latents.insert(joined.latents.end(), state->latents.begin(), state->latents.end());
    for (std::size_t i = 0; i < joined.history.size(); ++i) {
      joined.history[i].insert(joined.history[i].end(), state->history[i].begin(), state->history[i].end());
    }
  }
  return joined;
}

std::vector<SamplerState> split_state(const SamplerState& state) {
  const auto images = static_cast<std::size_t>(state.shape[0]);
  std::vector<SamplerState> parts(images);
  for (std::size_t i = 0; i < images; ++i) {
    SamplerState& part = parts[i];
    part.sampler = state.sampler;
    part.sigmas = state.sigmas;
    part.step = state.step;
    part.shape = Shape{1, state.shape[1], state.shape[2], state.shape[3]};
    part.options = state.options;
    part.noise = {state.noise[i]};
    const auto cut = [&](const std::vector<float>& values) {
      const auto each = static_cast<std::ptrdiff_t>(values.size() / images);
      const auto begin = values.begin() + static_cast<std::ptrdiff_t>(i) * each;
      return std::vector<float>(begin, begin + each);
    };
    part.latents = cut(state.latents);
    for (const std::vector<float>& tensor : state.history) part.history.push_back(cut(tensor));
  }
  return parts;
}

}  // namespace octavo::sampling
