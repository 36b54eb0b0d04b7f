#include "weights/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "weights/test_files.h"

namespace octavo::weights {
namespace {

using test::file_bytes;
using test::parse;
using test::TemporaryFolder;
using test::write_text;
using testing::HasSubstr;

/// A header with one tensor, from the JSON of its entry.
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"w":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}

TEST(Safetensors, what_is_written_is_read_back) {
  const TemporaryFolder folder;
  const std::vector<float> floats = {1.0f, -2.5f, 3.0f, 4.0f, 5.0f, 6.0f};
  const std::vector<BFloat16> brains = {to_bfloat16(0.5f), to_bfloat16(-1.0f)};
  const float scalar = 7.0f;
  const std::vector<NamedTensor> tensors = {
      {"b.weight", TensorView(floats.data(), DType::kF32, Shape{2, 3})},
      {"a.bias", TensorView(brains.data(), DType::kBF16, Shape{2})},
      {"scale", TensorView(&scalar, DType::kF32, Shape{})},
      {"nothing", TensorView(&scalar, DType::kF32, Shape{0, 4})},
  };
  const auto path = folder / "model.safetensors";
  ASSERT_TRUE(write_safetensors(path, tensors, {{"format", "pt"}}).ok());
  const auto file = SafetensorsFile::open(path);
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  EXPECT_EQ((*file)->metadata().at("format"), "pt");
  ASSERT_EQ((*file)->tensors().size(), 4u);
  for (const NamedTensor& tensor : tensors) {
    const TensorInfo& info = (*file)->tensors().at(tensor.name);
    EXPECT_EQ(info.shape, tensor.view.shape());
    const auto view = (*file)->view(info);
    ASSERT_TRUE(view.ok());
    EXPECT_EQ(view->dtype(), tensor.view.dtype());
    EXPECT_EQ(std::memcmp(view->data(), tensor.view.data(), view->byte_count()), 0) << tensor.name;
  }
  std::size_t files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder.path())) ++files;
  EXPECT_EQ(files, 1u) << "the temporary is gone";
}

TEST(Safetensors, a_file_that_cannot_be_written_leaves_nothing_and_gives_the_reason) {
  const TemporaryFolder folder;
  const Status status = write_safetensors(folder / "missing/model.safetensors", {});
  EXPECT_EQ(status.code(), ErrorCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("No such file or directory"));
  // The target is a folder: the rename fails after everything was written.
  std::filesystem::create_directories(folder / "taken/inside");
  EXPECT_FALSE(write_safetensors(folder / "taken", {}).ok());
  std::size_t entries = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder.path())) ++entries;
  EXPECT_EQ(entries, 1u);
}

TEST(Safetensors, a_name_written_twice_is_a_programmers_error) {
  const float value = 1.0f;
  const NamedTensor tensor{"w", TensorView(&value, DType::kF32, Shape{1})};
  const std::vector<NamedTensor> twice = {tensor, tensor};
  EXPECT_THROW(static_cast<void>(write_safetensors("unused", twice)), CheckFailure);
}

TEST(Safetensors, headers_that_other_writers_make_are_accepted) {
  EXPECT_TRUE(parse(file_bytes("{}", 0)).ok());
  EXPECT_TRUE(parse(file_bytes(one("F32", "[2,2]", "[0,16]") + "    ", 16)).ok()) << "padded with spaces";
  EXPECT_TRUE(parse(file_bytes(R"({"__metadata__":{"a":"b:\"c\":d"}})", 0)).ok()) << "colons and quotes in strings";
  for (const char* dtype : {"F64", "I64", "U64"}) EXPECT_TRUE(parse(file_bytes(one(dtype, "[1]", "[0,8]"), 8)).ok());
  for (const char* dtype : {"F32", "I32", "U32"}) EXPECT_TRUE(parse(file_bytes(one(dtype, "[]", "[0,4]"), 4)).ok());
  for (const char* dtype : {"F16", "BF16", "I16", "U16"}) {
    EXPECT_TRUE(parse(file_bytes(one(dtype, "[3]", "[0,6]"), 6)).ok());
  }
  for (const char* dtype : {"F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"}) {
    EXPECT_TRUE(parse(file_bytes(one(dtype, "[1,1,5]", "[0,5]"), 5)).ok());
  }
}

TEST(Safetensors, a_header_whose_length_looks_like_a_pickle_is_still_a_header) {
  for (const std::size_t length : {0x280u, 0x480u}) {
    std::string header = one("F32", "[1]", "[0,4]");
    header.resize(length, ' ');
    EXPECT_TRUE(parse(file_bytes(header, 4)).ok());
  }
}

struct Broken {
  std::string name;
  std::string bytes;
  std::string says;
};

class BrokenSafetensors : public testing::TestWithParam<Broken> {};

TEST_P(BrokenSafetensors, is_refused_in_one_line_that_says_what_it_is) {
  const TemporaryFolder folder;
  const auto path = folder / "model.safetensors";
  write_text(path, GetParam().bytes);
  const Status status = SafetensorsFile::open(path).status();
  EXPECT_EQ(status.code(), ErrorCode::kDataCorruption);
  EXPECT_EQ(status.subject(), path.string());
  EXPECT_THAT(status.message(), HasSubstr(GetParam().says));
  EXPECT_EQ(status.message().find('\n'), std::string::npos);
}

std::string nested(int depth) { return "{\"w\":" + std::string(static_cast<std::size_t>(depth), '[') + "}"; }

const std::string kGood = file_bytes(one("F32", "[2,2]", "[0,16]"), 16);
const std::string kHalf = R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";

INSTANTIATE_TEST_SUITE_P(
    Files, BrokenSafetensors,
    testing::Values(Broken{"empty", "", "empty"}, Broken{"short", "\x02", "too few"},
                    Broken{"html", "\n <!DOCTYPE html><html>", "web page"},
                    Broken{"xml", "<?xml version='1.0'?><Error/>", "web page"},
                    Broken{"lfs", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"},
                    Broken{"zip_pickle", std::string("PK\x03\x04\x00\x00\x08\x08\x00\x00 archive/data.pkl", 27),
                           "pickle"},
                    Broken{"old_pickle", "\x80\x02}q\x01X\x04 and more bytes", "pickle"},
                    Broken{"gguf", "GGUF\x03 and more bytes", "GGUF"},
                    Broken{"text", "{\"error\": \"not found\"}", "text file"},
                    Broken{"cut_in_data", kGood.substr(0, kGood.size() - 1), "cut short"},
                    Broken{"cut_in_header", kGood.substr(0, 30), "cut short"},
                    Broken{"padded", kGood + "x", "1 unused bytes after the last tensor"},
                    Broken{"huge_header", std::string("\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10), "over the limit"},
                    Broken{"array_header", file_bytes("[1, 2, 3]", 0), "not a JSON object"},
                    Broken{"bad_json", file_bytes("{\"w\":", 0), "not valid JSON"},
                    Broken{"trailing_json", file_bytes("{} {}", 0), "not valid JSON"},
                    Broken{"deep_json", file_bytes(nested(5000), 0), "not valid JSON"},
                    Broken{"bad_utf8", file_bytes("{\"\xff\":1}", 0), "not valid JSON"}));

INSTANTIATE_TEST_SUITE_P(
    Headers, BrokenSafetensors,
    testing::Values(
        Broken{"entry", file_bytes(R"({"w":[1]})", 0), "tensor w: its entry is not an object"},
        Broken{"fields", file_bytes(R"({"w":{"dtype":"F32","shape":[1]}})", 4), "needs dtype, shape"},
        Broken{"dtype", file_bytes(one("F33", "[1]", "[0,4]"), 4), "unknown dtype F33"},
        Broken{"rank", file_bytes(one("F32", "[1,1,1,1,1,1]", "[0,4]"), 4), "rank 6"},
        Broken{"negative", file_bytes(one("F32", "[-1]", "[0,4]"), 4), "non-negative integers"},
        Broken{"fraction", file_bytes(one("F32", "[1.5]", "[0,4]"), 4), "non-negative integers"},
        Broken{"overflow", file_bytes(one("F32", "[4294967296,4294967296]", "[0,0]"), 0), "overflows"},
        Broken{"overflow_behind_zero", file_bytes(one("I8", "[0,9000000000000000000,9]", "[0,0]"), 0), "overflows"},
        Broken{"backwards", file_bytes(one("F32", "[1]", "[4,0]"), 4), "not [begin, end]"},
        Broken{"offset_type", file_bytes(one("F32", "[1]", "[0,\"4\"]"), 4), "not [begin, end]"},
        Broken{"three_offsets", file_bytes(one("F32", "[1]", "[0,4,4]"), 4), "two data_offsets"},
        Broken{"wrong_size", file_bytes(one("F32", "[1]", "[0,8]"), 8), "needs 4 bytes, its data_offsets hold 8"},
        Broken{"hole", file_bytes(one("F32", "[1]", "[4,8]"), 8), "4 unused bytes before tensor w"},
        Broken{"overlap", file_bytes("{" + kHalf + R"(,"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12),
               "tensor b overlaps"},
        Broken{"same_bytes", file_bytes("{" + kHalf + R"(,"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8),
               "overlaps"},
        Broken{"twice", file_bytes("{" + kHalf + "," + kHalf + "}", 8), "one name twice"},
        Broken{"control", file_bytes(R"({"\u001b[2J":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4),
               "control characters"},
        Broken{"metadata", file_bytes(R"({"__metadata__":[]})", 0), "__metadata__ is not an object"},
        Broken{"metadata_value", file_bytes(R"({"__metadata__":{"step":7}})", 0),
               "__metadata__ step is not a string"}));

TEST(Safetensors, a_dtype_that_no_op_reads_is_an_error_only_when_it_is_asked_for) {
  const TemporaryFolder folder;
  write_text(folder / "ids.safetensors", file_bytes(one("I64", "[2]", "[0,16]"), 16));
  const auto file = SafetensorsFile::open(folder / "ids.safetensors");
  ASSERT_TRUE(file.ok());
  const auto view = (*file)->view((*file)->tensors().at("w"));
  EXPECT_EQ(view.status().code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(view.status().message(), HasSubstr("I64"));
}

TEST(Safetensors, missing_files_and_folders_are_named) {
  const TemporaryFolder folder;
  const Status missing = SafetensorsFile::open(folder / "no.safetensors").status();
  EXPECT_EQ(missing.code(), ErrorCode::kNotFound);
  EXPECT_THAT(missing.to_string(), HasSubstr("no.safetensors"));
  EXPECT_THAT(SafetensorsFile::open(folder.path()).status().message(), HasSubstr("not a regular file"));
}

TEST(Safetensors, every_prefix_and_every_changed_byte_is_survived) {
  const std::string good =
      file_bytes(R"({"__metadata__":{"a":"b"},"a":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]},)"
                 R"("b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})",
                 12);
  ASSERT_TRUE(parse(good).ok());
  for (std::size_t length = 0; length < good.size(); ++length) EXPECT_FALSE(parse(good.substr(0, length)).ok());
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (const char with : {'\0', '0', '9', '"', '{', ']', '\xff'}) {
      std::string changed = good;
      changed[at] = with;
      const auto header = parse(changed);
      if (!header.ok()) continue;
      for (const auto& [name, info] : header->tensors) {
        EXPECT_LE(header->data_begin + info.offset + info.byte_count, changed.size());
      }
    }
  }
}

}  // namespace
}  // namespace octavo::weights
