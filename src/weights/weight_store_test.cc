#include "weights/weight_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "weights/safetensors.h"
#include "weights/test_files.h"

namespace octavo::weights {
namespace {

using test::TemporaryFolder;
using test::write_f32;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

std::shared_ptr<const SafetensorsFile> open_file(const std::filesystem::path& path) {
  auto file = SafetensorsFile::open(path);
  OCTAVO_CHECK(file.ok(), "{}", file.status().to_string());
  return *file;
}

WeightStore open_store(std::vector<std::filesystem::path> paths) {
  std::vector<std::shared_ptr<const SafetensorsFile>> files;
  for (const auto& path : paths) files.push_back(open_file(path));
  auto store = WeightStore::open("transformer", std::move(files));
  OCTAVO_CHECK(store.ok(), "{}", store.status().to_string());
  return std::move(store).value();
}

TEST(WeightStore, gives_the_values_of_every_file_and_outlives_their_handles) {
  const TemporaryFolder folder;
  write_f32(folder / "one.safetensors", {"a"}, 1.5f);
  write_f32(folder / "two.safetensors", {"b"}, 2.5f);
  WeightStore store = open_store({folder / "one.safetensors", folder / "two.safetensors"});
  EXPECT_EQ(store.require("a", Shape{4}).f32()[3], 1.5f);
  EXPECT_EQ(store.require("b", Shape{4}).f32()[0], 2.5f);
  EXPECT_FALSE(store.optional("c", Shape{4}).defined());
  EXPECT_TRUE(store.contains("a"));
  EXPECT_EQ(*store.shape_of("a"), (Shape{4}));
  EXPECT_EQ(store.shape_of("c"), nullptr);
  EXPECT_EQ(store.byte_count(), 32u);
  EXPECT_EQ(store.first_bytes("a", 6).size(), 6u);
  EXPECT_EQ(store.first_bytes("a", 99).size(), 16u);
  EXPECT_THROW(store.first_bytes("c", 6), CheckFailure);
  EXPECT_TRUE(store.finish().ok());
}

TEST(WeightStore, lists_missing_misshaped_and_unused_names_in_one_message) {
  const TemporaryFolder folder;
  write_f32(folder / "w.safetensors", {"shaped", "spare", "ids"});
  WeightStore store = open_store({folder / "w.safetensors"});
  EXPECT_FALSE(store.require("absent", Shape{2, 3}).defined());
  EXPECT_FALSE(store.require("shaped", Shape{2, 2}).defined());
  store.ignore("ids");
  const Status status = store.finish();
  EXPECT_EQ(status.subject(), "transformer");
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr("1 missing: absent [2, 3]"), HasSubstr("shaped is [4], expected [2, 2]"),
                    HasSubstr("1 not part of this model: spare"), Not(HasSubstr("ids"))));
}

TEST(WeightStore, a_wrong_shape_is_recorded_for_an_optional_tensor_too) {
  const TemporaryFolder folder;
  write_f32(folder / "w.safetensors", {"w"});
  WeightStore store = open_store({folder / "w.safetensors"});
  EXPECT_FALSE(store.optional("w", Shape{5}).defined());
  EXPECT_THAT(store.finish().message(), HasSubstr("w is [4], expected [5]"));
}

TEST(WeightStore, long_lists_are_cut_with_their_count) {
  const TemporaryFolder folder;
  write_f32(folder / "w.safetensors", {"w"});
  WeightStore store = open_store({folder / "w.safetensors"});
  store.require("w", Shape{4});
  for (int i = 0; i < 40; ++i) store.require(fmt::format("block.{}", i), Shape{1});
  EXPECT_THAT(store.finish().message(),
              AllOf(HasSubstr("40 missing"), HasSubstr("block.11"), Not(HasSubstr("block.12")), HasSubstr("28 more")));
}

TEST(WeightStore, a_dtype_that_no_model_reads_is_named) {
  const TemporaryFolder folder;
  test::write_text(folder / "w.safetensors",
                   test::file_bytes(R"({"w":{"dtype":"I16","shape":[2],"data_offsets":[0,4]}})", 4));
  WeightStore store = open_store({folder / "w.safetensors"});
  EXPECT_FALSE(store.require("w", Shape{2}).defined());
  EXPECT_THAT(store.finish().message(), HasSubstr("w is I16, expected F32, F16, BF16 or FP8"));
}

template <typename T>
void write_one(const std::filesystem::path& path, DType dtype, const std::vector<T>& data) {
  const NamedTensor tensor{"w", TensorView(data.data(), dtype, Shape{static_cast<std::int64_t>(data.size())})};
  ASSERT_TRUE(write_safetensors(path, std::span(&tensor, 1)).ok());
}

TEST(WeightStore, nan_and_infinity_are_found_wherever_they_lie) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const TemporaryFolder folder;
  const auto path = folder / "w.safetensors";
  constexpr std::int64_t kCount = 10'000;  // more than two blocks of the scan
  for (const std::int64_t at : {std::int64_t{0}, std::int64_t{4095}, std::int64_t{4096}, kCount - 1}) {
    for (const float poison : {std::numeric_limits<float>::quiet_NaN(), kInfinity, -kInfinity}) {
      std::vector<float> f32(kCount, std::numeric_limits<float>::max());
      std::vector<Float16> f16(kCount, to_float16(-65504.0f));
      std::vector<BFloat16> bf16(kCount, to_bfloat16(-0x1.fep127f));
      const auto check = [&](bool poisoned) {
        WeightStore store = open_store({path});
        ASSERT_TRUE(store.require("w", Shape{kCount}).defined());
        const Status status = store.finish();
        ASSERT_EQ(status.ok(), !poisoned) << status.to_string();
        if (poisoned) {
          EXPECT_THAT(status.message(),
                      HasSubstr(fmt::format("tensor w holds NaN or infinity, first at element {}", at)));
        }
      };
      const auto index = static_cast<std::size_t>(at);
      write_one(path, DType::kF32, f32);
      check(false);
      f32[index] = poison;
      write_one(path, DType::kF32, f32);
      check(true);
      write_one(path, DType::kF16, f16);
      check(false);
      f16[index] = to_float16(poison);
      write_one(path, DType::kF16, f16);
      check(true);
      write_one(path, DType::kBF16, bf16);
      check(false);
      bf16[index] = to_bfloat16(poison);
      write_one(path, DType::kBF16, bf16);
      check(true);
    }
  }
}

TEST(WeightStore, a_part_over_the_limit_is_not_scanned) {
  const TemporaryFolder folder;
  write_f32(folder / "w.safetensors", {"w"}, std::numeric_limits<float>::quiet_NaN());
  for (const auto& [limit, good] : {std::pair<std::size_t, bool>{15, true}, {16, false}}) {
    WeightStore store = open_store({folder / "w.safetensors"});
    store.require("w", Shape{4});
    EXPECT_EQ(store.finish(limit).ok(), good);
  }
}

TEST(WeightStore, check_only_compares_and_gives_nothing_out) {
  const TemporaryFolder folder;
  write_f32(folder / "w.safetensors", {"a", "b"}, std::numeric_limits<float>::quiet_NaN());
  WeightStore store = open_store({folder / "w.safetensors"});
  store.check_only();
  EXPECT_FALSE(store.require("a", Shape{4}).defined());
  EXPECT_FALSE(store.optional("b", Shape{4}).defined());
  EXPECT_TRUE(store.finish().ok()) << "values are not read";
  EXPECT_FALSE(store.require("c", Shape{4}).defined());
  EXPECT_FALSE(store.require("b", Shape{2, 2}).defined());
  EXPECT_THAT(store.finish().message(), AllOf(HasSubstr("missing: c"), HasSubstr("b is [4], expected [2, 2]")));
}

TEST(WeightStore, a_name_in_two_files_is_refused_and_names_both) {
  const TemporaryFolder folder;
  write_f32(folder / "one.safetensors", {"a", "b"});
  write_f32(folder / "two.safetensors", {"b", "c"});
  const auto store =
      WeightStore::open("vae", {open_file(folder / "one.safetensors"), open_file(folder / "two.safetensors")});
  EXPECT_THAT(store.status().to_string(),
              AllOf(HasSubstr("one.safetensors"), HasSubstr("two.safetensors"), HasSubstr("tensor b")));
}

TEST(WeightStore, a_tensor_at_an_odd_address_is_copied_to_an_aligned_one) {
  const TemporaryFolder folder;
  std::string header = R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  if (header.size() % 2 == 0) header += ' ';
  std::string bytes = test::file_bytes(header, 0);
  const float values[2] = {1.25f, -3.5f};
  bytes.append(reinterpret_cast<const char*>(values), sizeof values);
  test::write_text(folder / "w.safetensors", bytes);
  WeightStore store = open_store({folder / "w.safetensors"});
  const TensorView view = store.require("w", Shape{2});
  ASSERT_TRUE(view.defined());
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(view.data()) % alignof(float), 0u);
  WeightStore moved = std::move(store);
  EXPECT_EQ(view.f32()[0], 1.25f);
  EXPECT_EQ(view.f32()[1], -3.5f);
  EXPECT_TRUE(moved.finish().ok());
}

}  // namespace
}  // namespace octavo::weights
