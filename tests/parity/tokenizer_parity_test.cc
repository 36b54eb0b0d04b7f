// The tokenizers of octavo-tiny against transformers (tools/reference/record_tokenizers.py): 2,000 strings of many
// scripts, every id equal.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "tests/parity/fixture.h"
#include "text/clip_tokenizer.h"
#include "text/t5_tokenizer.h"

namespace octavo::parity {
namespace {

using Ids = std::vector<std::int32_t>;

std::string folder(const char* name) { return std::string(OCTAVO_SOURCE_DIR) + "/models/octavo-tiny/" + name; }

class TokenizerParity : public ::testing::Test {
 protected:
  std::size_t count() const { return static_cast<std::size_t>(fixture_["strings.ends"].dim(0)); }

  std::string_view text(std::size_t index) const {
    const auto* bytes = static_cast<const char*>(fixture_["strings.bytes"].data());
    const auto [begin, end] = range("strings", index);
    return {bytes + begin, end - begin};
  }

  /// Ids without the padding that follows them.
  Ids ids(const std::string& list, std::size_t index) const {
    const auto* bytes = static_cast<const char*>(fixture_[list + ".ids"].data());
    const auto [begin, end] = range(list, index);
    Ids result;
    for (std::size_t at = begin; at < end; ++at) {
      std::uint16_t id = 0;
      std::memcpy(&id, bytes + at * sizeof id, sizeof id);
      result.push_back(id);
    }
    return result;
  }

  Ids padded(Ids ids, std::size_t length, std::int32_t pad) const {
    ids.resize(length, pad);
    return ids;
  }

  std::string describe(std::size_t index) const {
    std::string shown = "string " + std::to_string(index) + ", " + std::to_string(text(index).size()) + " bytes: ";
    for (const char c : text(index).substr(0, 60)) {
      const auto byte = static_cast<unsigned char>(c);
      shown += byte >= 0x20 && byte < 0x7F ? std::string(1, c) : fmt::format("\\x{:02X}", byte);
    }
    return shown;
  }

 private:
  std::pair<std::size_t, std::size_t> range(const std::string& list, std::size_t index) const {
    const auto* ends = fixture_[list + ".ends"].as<std::int32_t>();
    return {index == 0 ? 0 : static_cast<std::size_t>(ends[index - 1]), static_cast<std::size_t>(ends[index])};
  }

  Fixture fixture_{"text/tokenizers.safetensors"};
};

TEST_F(TokenizerParity, clip_l_and_clip_g_equal_transformers) {
  ASSERT_EQ(count(), 2000u);
  for (const auto& [list, name] : {std::pair("clip_l", "tokenizer"), std::pair("clip_g", "tokenizer_2")}) {
    const auto tokenizer = text::ClipTokenizer::load(folder(name));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().to_string();
    int wrong = 0;
    for (std::size_t i = 0; i < count() && wrong < 10; ++i) {
      const Ids expected = padded(ids(list, i), 77, tokenizer->pad_id());
      const Ids found = tokenizer->encode_padded(text(i), 77);
      if (found != expected) ++wrong;
      EXPECT_EQ(found, expected) << list << ", " << describe(i);
    }
  }
}

TEST_F(TokenizerParity, t5_equals_transformers_at_77_and_256) {
  const auto tokenizer = text::T5Tokenizer::load(folder("tokenizer_3"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().to_string();
  int wrong = 0, longer = 0;
  for (std::size_t i = 0; i < count() && wrong < 10; ++i) {
    const Ids at_256 = ids("t5_256", i);
    const Ids expected = padded(at_256, 256, 0);
    const Ids found = tokenizer->encode_padded(text(i), 256);
    if (found != expected) ++wrong;
    EXPECT_EQ(found, expected) << describe(i);
    const Ids cut = ids("t5_77", i);  // empty when all of it fits
    longer += cut.empty() ? 0 : 1;
    EXPECT_EQ(tokenizer->encode_padded(text(i), 77), padded(cut.empty() ? at_256 : cut, 77, 0)) << describe(i);
  }
  EXPECT_GE(longer, 10);
}

}  // namespace
}  // namespace octavo::parity
