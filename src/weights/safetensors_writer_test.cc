#include "weights/safetensors_writer.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <cstring>
#include <vector>

#include "weights/safetensors.h"
#include "weights/test_files.h"

namespace octavo::weights {
namespace {

std::vector<std::string> files_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.push_back(entry.path().filename());
  return names;
}

/// While alive no file of this process may grow over a size: a disk that is full, for one process.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &previous_);
    rlimit limit = previous_;
    limit.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &limit);
    handler_ = ::signal(SIGXFSZ, SIG_IGN);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &previous_);
    ::signal(SIGXFSZ, handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit previous_{};
  void (*handler_)(int) = nullptr;
};

const std::vector<StreamedTensor> kTensors = {{"a", "F32", Shape{2, 3}}, {"b", "U8", Shape{5}}, {"c", "F32", Shape{}}};
constexpr std::size_t kBytes = 24 + 5 + 4;

std::vector<std::byte> counted(std::size_t count) {
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i < count; ++i) bytes.push_back(static_cast<std::byte>(i));
  return bytes;
}

TEST(SafetensorsWriter, portions_of_any_size_become_the_tensors) {
  const test::TemporaryFolder folder;
  const auto bytes = counted(kBytes);
  for (const std::size_t portion : {std::size_t{1}, std::size_t{7}, kBytes}) {
    const auto path = folder / "weights.safetensors";
    const auto writer = SafetensorsWriter::create(path, kTensors, {{"made", "here"}}).value();
    EXPECT_FALSE(std::filesystem::exists(path)) << "the file appears before it is whole";
    for (std::size_t at = 0; at < bytes.size(); at += portion) {
      ASSERT_TRUE(writer->append(std::span(bytes).subspan(at, std::min(portion, bytes.size() - at))).ok());
    }
    ASSERT_TRUE(writer->finish().ok());
    EXPECT_EQ(files_in(folder.path()), std::vector<std::string>{"weights.safetensors"});
    const auto file = SafetensorsFile::open(path).value();
    EXPECT_EQ(file->metadata().at("made"), "here");
    ASSERT_EQ(file->tensors().size(), 3u);
    const TensorInfo& second = file->tensors().at("b");
    EXPECT_EQ(second.dtype, "U8");
    EXPECT_EQ(second.shape, Shape{5});
    EXPECT_EQ(std::memcmp(file->bytes(second).data(), bytes.data() + 24, 5), 0);
    EXPECT_EQ(file->tensors().at("c").shape.rank(), 0);
    std::filesystem::remove(path);
  }
}

TEST(SafetensorsWriter, nothing_remains_of_a_file_that_was_not_finished) {
  const test::TemporaryFolder folder;
  {
    const auto writer = SafetensorsWriter::create(folder / "weights.safetensors", kTensors).value();
    ASSERT_TRUE(writer->append(counted(10)).ok());
    EXPECT_EQ(files_in(folder.path()).size(), 1u);
  }
  EXPECT_TRUE(files_in(folder.path()).empty());
}

TEST(SafetensorsWriter, a_full_disk_is_an_error_and_leaves_nothing) {
  const test::TemporaryFolder folder;
  const std::vector<StreamedTensor> large = {{"a", "F32", Shape{1024, 1024}}};
  const FileSizeLimit limit(1 << 20);
  {
    const auto writer = SafetensorsWriter::create(folder / "weights.safetensors", large).value();
    Status status;
    for (int i = 0; status.ok() && i < 4; ++i) status = writer->append(counted(1 << 20));
    EXPECT_EQ(status.code(), ErrorCode::kResourceExhausted);
    EXPECT_NE(status.to_string().find("weights.safetensors"), std::string::npos) << status.to_string();
    EXPECT_NE(status.message().find("File too large"), std::string::npos) << status.to_string();
  }
  EXPECT_TRUE(files_in(folder.path()).empty());
}

TEST(SafetensorsWriter, a_folder_that_is_not_there_is_named) {
  const test::TemporaryFolder folder;
  const auto writer = SafetensorsWriter::create(folder / "none/weights.safetensors", kTensors);
  ASSERT_FALSE(writer.ok());
  EXPECT_NE(writer.status().to_string().find("none/weights.safetensors"), std::string::npos);
}

TEST(SafetensorsWriter, wrong_byte_counts_and_repeated_names_are_caught) {
  const test::TemporaryFolder folder;
  const auto writer = SafetensorsWriter::create(folder / "weights.safetensors", kTensors).value();
  EXPECT_THROW((void)writer->append(counted(kBytes + 1)), CheckFailure);
  EXPECT_THROW((void)writer->finish(), CheckFailure);
  const std::vector<StreamedTensor> twice = {{"a", "F32", Shape{1}}, {"a", "F32", Shape{1}}};
  EXPECT_THROW((void)SafetensorsWriter::create(folder / "twice.safetensors", twice), CheckFailure);
  const std::vector<StreamedTensor> unknown = {{"a", "F12", Shape{1}}};
  EXPECT_THROW((void)SafetensorsWriter::create(folder / "unknown.safetensors", unknown), CheckFailure);
}

}  // namespace
}  // namespace octavo::weights
