#include "sampling/sampler_state.h"

#include <gtest/gtest.h>

#include <limits>

#include "sampling/schedule.h"

namespace octavo::sampling {
namespace {

/// Pictures of seed, seed + 1, ...
SamplerState start(std::vector<float> sigmas, const Shape& shape, std::int64_t seed,
                   std::span<const float> image = {}) {
  const SamplerRow& row = *find_sampler("euler").value();
  std::vector<NoiseOptions> pictures(static_cast<std::size_t>(shape[0]));
  for (std::size_t i = 0; i < pictures.size(); ++i) {
    pictures[i].source = i % 2 == 0 ? NoiseSource::kTorchCpu : NoiseSource::kPhilox;
    pictures[i].seed = seed + static_cast<std::int64_t>(i);
  }
  Schedule schedule;
  schedule.sigmas = std::move(sigmas);
  schedule.below_one = 0.99f;
  return initial_state(row, schedule, {.eta = 0.5f, .s_noise = 1.1f}, shape, pictures, image);
}

SamplerState small_state() {
  SamplerState state = start(make_schedule(*find_schedule("").value(), 3).sigmas, Shape{2, 1, 2, 2}, 42);
  state.step = 1;
  state.history = {std::vector<float>(8, 0.5f)};
  return state;
}

/// The checksum of the format, so that a test can sign what it forged.
void sign(std::vector<std::byte>& bytes) {
  std::uint64_t hash = 0xCBF29CE484222325u;
  for (std::size_t i = 0; i + 8 < bytes.size(); ++i)
    hash = (hash ^ static_cast<std::uint64_t>(bytes[i])) * 0x100000001B3u;
  for (std::size_t i = 0; i < 8; ++i) bytes[bytes.size() - 8 + i] = static_cast<std::byte>(hash >> (8 * i));
}

TEST(SamplerState, every_picture_has_its_own_noise_and_stream) {
  const std::vector<float> sigmas = {1.0f, 0.5f, 0.0f};
  const SamplerState both = start(sigmas, Shape{3, 16, 4, 4}, 1000);
  const SamplerState third = start(sigmas, Shape{1, 16, 4, 4}, 1002);
  EXPECT_TRUE(std::equal(third.latents.begin(), third.latents.end(), both.latents.begin() + 512));
  EXPECT_EQ(both.noise[2], third.noise[0]);
  EXPECT_EQ(both.noise[1].source(), NoiseSource::kPhilox);
}

TEST(SamplerState, a_start_below_one_mixes_noise_and_image) {
  std::vector<float> image(16);
  for (std::size_t i = 0; i < image.size(); ++i) image[i] = static_cast<float>(i);
  const Shape shape{1, 16, 1, 1};
  const SamplerState noise = start({1.0f, 0.0f}, shape, 7);
  const SamplerState mixed = start({0.25f, 0.0f}, shape, 7, image);
  for (std::size_t i = 0; i < image.size(); ++i) {
    EXPECT_EQ(mixed.latents[i], 0.25f * noise.latents[i] + 0.75f * image[i]) << i;
  }
  // At 1 nothing of the image is left.
  EXPECT_EQ(start({1.0f, 0.0f}, shape, 7, image).latents, noise.latents);
}

TEST(SamplerState, only_rows_that_need_a_finite_snr_leave_one) {
  SamplerRow row = *find_sampler("euler").value();
  const NoiseOptions noise;
  Schedule schedule{.sigmas = {1.0f, 0.5f, 0.0f}, .timesteps = {}, .below_one = 0.99f};
  const auto first = [&] { return initial_state(row, schedule, {}, Shape{1, 1, 1, 16}, {&noise, 1}).sigmas.front(); };
  EXPECT_EQ(first(), 1.0f);
  row.needs_finite_snr = true;
  EXPECT_EQ(first(), 0.99f);
  schedule.sigmas.front() = 0.8f;
  EXPECT_EQ(first(), 0.8f);
}

TEST(SamplerState, bytes_give_back_the_same_value) {
  const SamplerState state = small_state();
  const std::vector<std::byte> bytes = state.to_bytes();
  const Result<SamplerState> restored = SamplerState::from_bytes(bytes);
  ASSERT_TRUE(restored.ok()) << restored.status().to_string();
  EXPECT_TRUE(*restored == state);
  EXPECT_TRUE(restored->to_bytes() == bytes);
}

TEST(SamplerState, joined_pictures_come_apart_as_they_were) {
  std::vector<SamplerState> pictures;
  for (int i = 0; i < 3; ++i) {
    SamplerState& picture = pictures.emplace_back(start({1.0f, 0.5f, 0.0f}, Shape{1, 2, 2, 3}, 100 + i));
    picture.step = 1;
    picture.history.assign(2, picture.latents);
    for (float& value : picture.history[1]) value += 1.0f;
  }
  ASSERT_FALSE(pictures[0] == pictures[1]);
  const SamplerState* const parts[] = {&pictures[0], &pictures[1], &pictures[2]};
  const Result<SamplerState> joined = join_states(parts);
  ASSERT_TRUE(joined.ok()) << joined.status().to_string();
  EXPECT_EQ(joined->shape, (Shape{3, 2, 2, 3}));
  EXPECT_TRUE(split_state(*joined) == pictures);
}

TEST(SamplerState, pictures_that_are_not_alike_are_not_joined) {
  const SamplerState first = start({1.0f, 0.5f, 0.0f}, Shape{1, 1, 2, 2}, 1);
  std::vector<SamplerState> others(4, first);
  others[0].step = 1;
  others[1].sampler = "heun";
  others[2].options.eta = 0.25f;
  others[3].history = {first.latents};
  others.push_back(start({1.0f, 0.25f, 0.0f}, Shape{1, 1, 2, 2}, 1));
  others.push_back(start({1.0f, 0.5f, 0.0f}, Shape{1, 1, 2, 4}, 1));
  for (std::size_t i = 0; i < others.size(); ++i) {
    const SamplerState* const parts[] = {&first, &others[i]};
    EXPECT_EQ(join_states(parts).status().code(), ErrorCode::kInvalidArgument) << i;
  }
  EXPECT_EQ(join_states({}).status().code(), ErrorCode::kInvalidArgument);
}

TEST(SamplerState, every_truncation_and_every_changed_byte_is_refused) {
  std::vector<std::byte> bytes = small_state().to_bytes();
  for (std::size_t size = 0; size < bytes.size(); size += size < 200 ? 1 : 97) {
    EXPECT_EQ(SamplerState::from_bytes(std::span(bytes).first(size)).status().code(), ErrorCode::kDataCorruption)
        << size;
  }
  for (std::size_t i = 0; i < bytes.size(); i += i < 200 ? 1 : 97) {
    const std::byte kept = bytes[i];
    bytes[i] ^= std::byte{0x10};
    EXPECT_EQ(SamplerState::from_bytes(bytes).status().code(), ErrorCode::kDataCorruption) << i;
    bytes[i] = kept;
  }
}

TEST(SamplerState, forged_lengths_with_a_right_checksum_do_no_harm) {
  const std::vector<std::byte> good = small_state().to_bytes();
  for (std::size_t i = 0; i + 8 < good.size(); ++i) {
    if (i > 150 && i + 300 < good.size() && i % 61 != 0) continue;  // the words of the generators: any value is one
    for (const int value : {0x00, 0x01, 0x7F, 0x80, 0xFF}) {
      std::vector<std::byte> forged = good;
      forged[i] = static_cast<std::byte>(value);
      sign(forged);
      const Result<SamplerState> result = SamplerState::from_bytes(forged);
      if (result.ok()) {
        EXPECT_TRUE(result->to_bytes() == forged) << i;
      } else {
        EXPECT_EQ(result.status().code(), ErrorCode::kDataCorruption) << i;
      }
    }
  }
}

TEST(SamplerState, contradictions_are_refused) {
  const auto code = [](const SamplerState& state) {
    return SamplerState::from_bytes(state.to_bytes()).status().code();
  };
  SamplerState state = small_state();
  state.step = 4;
  EXPECT_EQ(code(state), ErrorCode::kDataCorruption);
  state = small_state();
  state.sigmas = {1.0f, 1.0f, 0.0f};
  EXPECT_EQ(code(state), ErrorCode::kDataCorruption);
  state.sigmas = {std::numeric_limits<float>::quiet_NaN(), 0.0f};
  EXPECT_EQ(code(state), ErrorCode::kDataCorruption);
  state = small_state();
  state.options.eta = 1.5f;
  EXPECT_EQ(code(state), ErrorCode::kDataCorruption);
  state.options = {.eta = 1.0f, .s_noise = std::numeric_limits<float>::infinity()};
  EXPECT_EQ(code(state), ErrorCode::kDataCorruption);
  state = small_state();
  state.latents.pop_back();
  EXPECT_EQ(code(state), ErrorCode::kDataCorruption);
  state = small_state();
  state.noise.pop_back();
  EXPECT_EQ(code(state), ErrorCode::kDataCorruption);
  state = small_state();
  state.history[0].push_back(0.0f);
  EXPECT_EQ(code(state), ErrorCode::kDataCorruption);
}

}  // namespace
}  // namespace octavo::sampling
