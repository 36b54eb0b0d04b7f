#include "weights/export/source_digest.h"

#include <gtest/gtest.h>

#include "base/sha256.h"
#include "weights/export/matrix_source.h"

namespace octavo::weights {
namespace {

std::string digest(const TensorSource& source) { return digest_source(source, {}).value(); }

TEST(SourceDigest, is_what_its_header_says) {
  test::MatrixSource source;
  source.add("b", Shape{2}, [](std::int64_t) { return 1.0f; });
  source.add(
      "a", Shape{1, 3}, [](std::int64_t i) { return static_cast<float>(i); }, DType::kBF16);
  const std::string ones("\x00\x00\x80\x3f\x00\x00\x80\x3f", 8), counted("\x00\x00\x80\x3f\x00\x40", 6);
  EXPECT_EQ(digest(source), sha256_hex("transformer/a bf16 [1, 3] " + sha256_hex(counted) + "\ntransformer/b f32 [2] " +
                                       sha256_hex(ones) + "\n"));
}

TEST(SourceDigest, depends_on_every_value_and_not_on_the_order_of_tensors) {
  const auto value = [](std::int64_t i) { return static_cast<float>(i % 1000); };
  test::MatrixSource one, other, changed;
  one.add("a", Shape{3, 1 << 20}, value);
  one.add("b", Shape{5}, value);
  other.add("b", Shape{5}, value);
  other.add("a", Shape{3, 1 << 20}, value);
  changed.add("a", Shape{3, 1 << 20}, [&value](std::int64_t i) { return i == (3 << 20) - 1 ? -1.0f : value(i); });
  changed.add("b", Shape{5}, value);
  EXPECT_EQ(digest(one), digest(other));
  EXPECT_NE(digest(one), digest(changed));
}

TEST(SourceDigest, can_be_stopped) {
  test::MatrixSource source;
  source.add("a", Shape{1 << 22}, [](std::int64_t) { return 0.0f; });
  std::size_t calls = 0;
  const auto stopped = digest_source(source, [&calls](std::size_t, std::size_t) { return ++calls < 2; });
  EXPECT_EQ(stopped.status().code(), ErrorCode::kCancelled);
  EXPECT_EQ(calls, 2u);
}

}  // namespace
}  // namespace octavo::weights
