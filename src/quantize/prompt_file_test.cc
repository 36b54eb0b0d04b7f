#include "quantize/prompt_file.h"

#include <gmock/gmock.h>

#include <fstream>

#include "base/sha256.h"
#include "generation/generation.h"

namespace octavo::quantize {
namespace {

using testing::HasSubstr;

class PromptFileTest : public testing::Test {
 protected:
  std::filesystem::path write(const std::string& text) const {
    const auto path = std::filesystem::path(testing::TempDir()) /
                      (std::string(testing::UnitTest::GetInstance()->current_test_info()->name()) + ".txt");
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
};

TEST_F(PromptFileTest, a_line_is_a_prompt_and_empty_lines_are_none) {
  const std::string text =
      "\xEF\xBB\xBF"
      "a red apple\r\n\n   \n  two cats, {in} a \"box\"  \n#3 on the list";
  const auto file = read_prompt_file(write(text), "--prompts");
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  ASSERT_EQ(file->entries.size(), 3u);
  EXPECT_EQ(file->entries[0].prompt, "a red apple");
  EXPECT_EQ(file->entries[1].prompt, "two cats, {in} a \"box\"");
  EXPECT_EQ(file->entries[2].prompt, "#3 on the list");
  EXPECT_EQ(file->entries[0].negative_prompt, "");
  EXPECT_TRUE(file->entries[0].facts.is_null());
  EXPECT_EQ(file->hash, sha256_hex(text));
}

TEST_F(PromptFileTest, json_lines_carry_negative_prompts_and_facts) {
  const auto file = read_prompt_file(write("{\"prompt\": \"a cat\", \"negative_prompt\": \"a dog\", \"seed\": 3}\n"
                                           "{\"facts\": [[\"object\", 5]], \"prompt\": \"\"}\n"),
                                     "--prompts");
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  ASSERT_EQ(file->entries.size(), 2u);
  EXPECT_EQ(file->entries[0].negative_prompt, "a dog");
  EXPECT_EQ(file->entries[0].seed, 3);
  EXPECT_EQ(file->entries[1].seed, std::nullopt);
  EXPECT_EQ(file->entries[1].prompt, "");
  EXPECT_EQ(file->entries[1].facts.at(0).at(1), 5);
}

TEST_F(PromptFileTest, what_is_wrong_is_named_with_flag_file_and_line) {
  const struct {
    std::string text;
    const char* words;
  } cases[] = {{"", "holds no prompt"},
               {"\n \n", "holds no prompt"},
               {"{\"prompt\": \"a\"}\n{\"prompt\": 3}", "line 2: \"prompt\" is not a text"},
               {"{\"prompt\": \"a\"}\na cat", "line 2: is not a JSON object"},
               {"\n{\"text\": \"a\"}", "line 2: has no \"prompt\""},
               {"{\"prompt\": \"a\", \"facts\": \"b\"}", "line 1: \"facts\" is not a list"},
               {"{\"prompt\": \"a\", \"seed\": -1}", "line 1: \"seed\" is not a whole number"},
               {"a cat\ncaf\xe9", "line 2: is not UTF-8"},
               {std::string("a\0b", 3), "line 1: is not UTF-8 text"},
               {std::string(generation::kMaxPromptBytes + 1, 'a'), "line 1: is longer"}};
  for (const auto& one : cases) {
    const auto path = write(one.text);
    const auto file = read_prompt_file(path, "--prompts");
    ASSERT_FALSE(file.ok()) << one.words;
    EXPECT_EQ(file.status().subject(), "--prompts");
    EXPECT_THAT(file.status().message(), HasSubstr(one.words));
    EXPECT_THAT(file.status().message(), HasSubstr(path.string()));
  }
  EXPECT_EQ(read_prompt_file("/nonexistent/prompts.txt", "--prompts").status().code(), ErrorCode::kNotFound);
  EXPECT_FALSE(read_prompt_file(testing::TempDir(), "--prompts").ok());
}

}  // namespace
}  // namespace octavo::quantize
