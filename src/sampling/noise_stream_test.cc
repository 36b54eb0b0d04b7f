#include "sampling/noise_stream.h"

#include <gtest/gtest.h>

namespace octavo::sampling {
namespace {

std::vector<float> draw(NoiseStream& stream, std::size_t count) {
  std::vector<float> values(count);
  stream.normal(values);
  return values;
}

TEST(NoiseStream, sources_have_names) {
  EXPECT_EQ(*parse_noise_source(""), NoiseSource::kTorchCpu);
  EXPECT_EQ(*parse_noise_source("CPU"), NoiseSource::kTorchCpu);
  EXPECT_EQ(*parse_noise_source("nv"), NoiseSource::kPhilox);
  const Status status = parse_noise_source("dice").status();
  EXPECT_EQ(status.code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(status.subject(), "noise_source");
}

TEST(NoiseStream, bytes_resume_every_source_anywhere_and_leave_the_rest) {
  for (const NoiseSource source : {NoiseSource::kTorchCpu, NoiseSource::kPhilox}) {
    NoiseStream stream(source, 99);
    draw(stream, 5);
    std::vector<std::byte> bytes;
    stream.append_bytes(bytes);
    bytes.push_back(std::byte{0xAB});
    std::span<const std::byte> rest = bytes;
    NoiseStream resumed = NoiseStream::take_from(rest).value();
    EXPECT_EQ(rest.size(), 1u);
    EXPECT_EQ(resumed, stream);
    EXPECT_EQ(draw(resumed, 20), draw(stream, 20));
  }
}

TEST(NoiseStream, impossible_bytes_are_refused) {
  std::vector<std::byte> bytes;
  NoiseStream(NoiseSource::kPhilox, 1).append_bytes(bytes);
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    std::span<const std::byte> cut = std::span(bytes).first(length);
    EXPECT_EQ(NoiseStream::take_from(cut).status().code(), ErrorCode::kDataCorruption) << length;
  }
  bytes.front() = std::byte{9};
  std::span<const std::byte> unknown = bytes;
  EXPECT_EQ(NoiseStream::take_from(unknown).status().code(), ErrorCode::kDataCorruption);
}

}  // namespace
}  // namespace octavo::sampling
