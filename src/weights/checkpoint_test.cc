#include "weights/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "weights/test_files.h"

namespace octavo::weights {
namespace {

using test::TemporaryFolder;
using test::write_f32;
using test::write_text;
using testing::AllOf;
using testing::HasSubstr;

constexpr const char* kIndex = R"({"_class_name": "StableDiffusion3Pipeline", "vae": ["diffusers", "AutoencoderKL"],
  "text_encoder_3": [null, null], "transformer": ["diffusers", "SD3Transformer2DModel"], "odd": "word"})";

/// A folder with a model_index.json and a transformer without weights.
class Checkpoint : public testing::Test {
 protected:
  Checkpoint() {
    write_text(folder_ / "model_index.json", kIndex);
    write_text(folder_ / "transformer/config.json", R"({"num_layers": 2, "scale": 1.5, "big": 9223372036854775808})");
  }
  Result<CheckpointPart> open_transformer() const {
    auto folder = DiffusersFolder::open(folder_.path());
    OCTAVO_CHECK(folder.ok(), "{}", folder.status().to_string());
    return folder->open_part("transformer");
  }
  void index(const std::string& weight_map) const {
    write_text(folder_ / "transformer/diffusion_pytorch_model.safetensors.index.json",
               R"({"metadata": {}, "weight_map": )" + weight_map + "}");
  }
  const TemporaryFolder folder_;
};

TEST_F(Checkpoint, knows_which_parts_there_are) {
  const auto folder = DiffusersFolder::open(folder_.path());
  ASSERT_TRUE(folder.ok());
  EXPECT_TRUE(folder->has_part("vae"));
  EXPECT_FALSE(folder->has_part("text_encoder_3")) << "[null, null] is a part left out";
  EXPECT_FALSE(folder->has_part("text_encoder"));
  EXPECT_FALSE(folder->has_part("odd"));
  EXPECT_THAT(folder->open_part("vae").status().to_string(), HasSubstr("vae: no such folder"));
}

TEST_F(Checkpoint, takes_the_plain_file_before_shards_and_variants) {
  write_f32(folder_ / "transformer/diffusion_pytorch_model.fp16.safetensors", {"variant"});
  EXPECT_TRUE(open_transformer()->weights.contains("variant"));
  write_f32(folder_ / "transformer/part-1.safetensors", {"sharded"});
  index(R"({"sharded": "part-1.safetensors"})");
  EXPECT_TRUE(open_transformer()->weights.contains("sharded"));
  write_f32(folder_ / "transformer/diffusion_pytorch_model.safetensors", {"plain"});
  const auto part = open_transformer();
  EXPECT_EQ(part->weights.names(), std::vector<std::string>{"plain"});
  EXPECT_EQ(part->name, "transformer");
  EXPECT_EQ(*config_int(part->config, "num_layers", "config.json"), 2);
}

TEST_F(Checkpoint, joins_shards) {
  write_f32(folder_ / "transformer/part-1.safetensors", {"a", "b"});
  write_f32(folder_ / "transformer/part-2.safetensors", {"c"});
  index(R"({"a": "part-1.safetensors", "b": "part-1.safetensors", "c": "part-2.safetensors"})");
  const auto part = open_transformer();
  ASSERT_TRUE(part.ok()) << part.status().to_string();
  EXPECT_EQ(part->weights.names(), (std::vector<std::string>{"a", "b", "c"}));
}

TEST_F(Checkpoint, an_index_that_does_not_agree_with_its_shards_is_refused) {
  write_f32(folder_ / "transformer/part-1.safetensors", {"a", "b"});
  write_f32(folder_ / "transformer/part-2.safetensors", {"b"});
  const auto refused = [this](const std::string& weight_map, const std::string& says) {
    index(weight_map);
    EXPECT_THAT(open_transformer().status().to_string(), AllOf(HasSubstr("transformer"), HasSubstr(says)));
  };
  refused("[]", "no weight_map");
  refused("{}", "weight_map is empty");
  refused(R"({"a": 1})", "weight_map a is not a string");
  refused(R"({"a": "part-9.safetensors"})", "part-9.safetensors: is not there");
  refused(R"({"a": "part-1.safetensors"})", "tensor b is not where");
  refused(R"({"a": "part-1.safetensors", "b": "part-1.safetensors", "c": "part-1.safetensors"})",
          "tensor c is in none of the shards");
  refused(R"({"a": "part-1.safetensors", "b": "part-2.safetensors"})", "tensor b is not where");
}

TEST_F(Checkpoint, a_shard_outside_the_folder_is_refused) {
  write_f32(folder_ / "secret.safetensors", {"a"});
  for (const char* name : {"../secret.safetensors", "/etc/passwd", "..", "", "x/../y", "a\\u0000b"}) {
    index(std::string(R"({"a": ")") + name + "\"}");
    EXPECT_THAT(open_transformer().status().message(), HasSubstr("is refused")) << name;
  }
}

TEST_F(Checkpoint, what_is_missing_is_named_and_a_pickle_is_explained) {
  EXPECT_THAT(open_transformer().status().to_string(), HasSubstr("holds no diffusion_pytorch_model.safetensors"));
  write_text(folder_ / "transformer/diffusion_pytorch_model.bin", "PK");
  EXPECT_THAT(open_transformer().status().message(), AllOf(HasSubstr("pickle"), HasSubstr("convert")));
  std::filesystem::remove(folder_ / "transformer/config.json");
  EXPECT_THAT(open_transformer().status().to_string(), HasSubstr("config.json: no such file"));
}

TEST_F(Checkpoint, configuration_files_that_are_not_json_objects_are_refused) {
  for (const std::string& text : {std::string("[1]"), std::string("{"), std::string(), std::string("\xff\xfe{}"),
                                  "{\"a\":" + std::string(1000, '[') + std::string(1000, ']') + "}"}) {
    write_text(folder_ / "transformer/config.json", text);
    const Status status = open_transformer().status();
    EXPECT_EQ(status.code(), ErrorCode::kDataCorruption);
    EXPECT_THAT(status.subject(), HasSubstr("transformer/config.json"));
  }
}

TEST_F(Checkpoint, a_configuration_file_over_the_limit_is_not_read) {
  std::filesystem::resize_file(folder_ / "transformer/config.json", std::uintmax_t{65} << 20);
  EXPECT_THAT(open_transformer().status().message(), HasSubstr("too many"));
}

TEST_F(Checkpoint, typed_reads_name_file_and_key) {
  const auto config = DiffusersFolder::open(folder_.path())->read_json("transformer/config.json");
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(*config_number(*config, "scale", "f"), 1.5);
  EXPECT_EQ(*config_number(*config, "num_layers", "f"), 2.0);
  EXPECT_EQ(config_int(*config, "scale", "f").status().to_string(), "f: scale is not an integer");
  EXPECT_EQ(config_int(*config, "big", "f").status().to_string(), "f: big is not an integer");
  EXPECT_EQ(config_int(*config, "width", "f").status().to_string(), "f: has no width");
  EXPECT_EQ(config_string(*config, "scale", "f").status().to_string(), "f: scale is not a string");
  EXPECT_EQ(config_number(*config, "none", "f").status().to_string(), "f: has no none");
}

TEST(DiffusersFolderOpen, says_what_a_path_is_instead) {
  const TemporaryFolder folder;
  EXPECT_THAT(DiffusersFolder::open(folder / "absent").status().to_string(), HasSubstr("absent: no such file"));
  EXPECT_THAT(DiffusersFolder::open(folder.path()).status().to_string(), HasSubstr("model_index.json"));
  write_text(folder / "file.safetensors", "x");
  EXPECT_THAT(DiffusersFolder::open(folder / "file.safetensors").status().message(), HasSubstr("is not a folder"));
}

}  // namespace
}  // namespace octavo::weights
