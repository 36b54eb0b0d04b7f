#include "base/sha256.h"

#include <gtest/gtest.h>

namespace octavo {
namespace {

// The examples of FIPS 180-4, and lengths around a block's border (from Python's hashlib).
TEST(Sha256, equals_the_published_digests) {
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256_hex(std::string(55, 'x')), "d5e285683cd4efc02d021a5c62014694958901005d6f71e89e0989fac77e4072");
  EXPECT_EQ(sha256_hex(std::string(64, 'x')), "7ce100971f64e7001e8fe5a51973ecdfe1ced42befe7ee8d5fd6219506b5393c");
  EXPECT_EQ(sha256_hex(std::string(1000, 'x')), "44f8354494a5ba03ba1792a8d3e9c534c47a9181980fde7a3f44b06ef2ae7c7f");
}

TEST(Sha256, portions_give_the_digest_of_the_whole) {
  Sha256 digest;
  for (const std::size_t length : {0u, 1u, 63u, 64u, 65u, 807u}) digest.update(std::string(length, 'x'));
  EXPECT_EQ(digest.finish_hex(), sha256_hex(std::string(1000, 'x')));
}

}  // namespace
}  // namespace octavo
