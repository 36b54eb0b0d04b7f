// Every CUDA row of matmul against the CPU's reference, which sums in double.
#include <fstream>

#include "ops/cuda/choice_file.cc"  // NOLINT: it lives in the backend, whose symbols a test cannot see
#include "ops/cuda/gpu_op_test.h"
#include "ops/matmul/matmul.h"

namespace octavo::ops {
namespace {

using testing::expect_close;

struct Case {
  std::int64_t batch = 1;
  std::int64_t rows = 5;  // of each batch row
  std::int64_t inner = 64;
  std::int64_t width = 48;
  DType x = DType::kBF16;
  DType weight = DType::kBF16;
  DType out = DType::kBF16;
  bool bias = true;
  DType bias_dtype = DType::kBF16;
  Activation activation = Activation::kNone;
  bool gate = false;
  bool residual = false;
  bool residual_is_out = false;
  std::int64_t x_padding = 0;  // unused elements after each row
  std::int64_t out_padding = 0;

  std::string name() const {
    return fmt::format("B{} T{} K{} N{} {}x{}->{} bias {} act{} gate{} residual{}{} pad{},{}", batch, rows, inner,
                       width, dtype_name(x), dtype_name(weight), dtype_name(out),
                       bias ? dtype_name(bias_dtype) : "none", static_cast<int>(activation), gate, residual,
                       residual_is_out ? " in place" : "", x_padding, out_padding);
  }
};

void check(const Case& c, int architecture = 0) {
  TestContext cpu;
  GpuContext gpu(architecture);
  const Shape out_shape{c.batch, c.rows, c.width};
  const TestTensor x = TestTensor::random(c.x, Shape{c.batch, c.rows, c.inner}, 1, 1, 0, c.x_padding);
  const TestTensor weight = TestTensor::random(c.weight, Shape{c.width, c.inner}, 2, 0.1f);
  const TestTensor bias = TestTensor::random(c.bias_dtype, Shape{c.width}, 3);
  const TestTensor gate = TestTensor::random(DType::kF32, Shape{c.batch, c.width}, 4, 1, 0, 24);
  const TestTensor residual = TestTensor::random(c.out, out_shape, 5, 1, 0, c.out_padding);
  const TestTensor poisoned(c.out, out_shape, c.out_padding);
  MatmulArgs args;
  args.epilogue.activation = c.activation;

  const TestTensor expected = c.residual_is_out ? residual : poisoned;
  args.x = x;
  args.weight.plain = weight;
  if (c.bias) args.epilogue.bias = bias;
  if (c.gate) args.epilogue.gate = gate;
  args.out = expected;
  if (c.residual) args.epilogue.residual = c.residual_is_out ? expected : residual;
  matmul(cpu.with_row("matmul", "reference"), args);

  const auto packed = pack_matmul_weight(gpu.device(), weight, c.x);
  ASSERT_TRUE(packed.ok()) << packed.status().to_string();
  const GpuTensor gpu_x(gpu, x), gpu_bias(gpu, bias), gpu_gate(gpu, gate), gpu_residual(gpu, residual);
  args.x = gpu_x;
  args.weight = *packed;
  if (c.bias) args.epilogue.bias = gpu_bias;
  if (c.gate) args.epilogue.gate = gpu_gate;
  const auto rows = gpu.rows_for(matmul_table(), args);
  ASSERT_FALSE(rows.empty());
  for (const std::string_view row : rows) {
    const GpuTensor out(gpu, c.residual_is_out ? residual : poisoned);
    args.out = out;
    if (c.residual) args.epilogue.residual = c.residual_is_out ? out.view() : gpu_residual.view();
    matmul(gpu.with_row("matmul", row), args);
    const TestTensor actual = out.download();
    EXPECT_TRUE(expect_close(actual, expected, op_tolerance(c.out))) << row << " " << c.name();
    if (c.out_padding > 0) {  // what lies between rows is as it was
      const std::size_t last = actual.all_bytes().size() - 1;
      EXPECT_EQ(actual.all_bytes()[last], expected.all_bytes()[last]) << row << " " << c.name();
    }
  }
}

constexpr DType kFloats[] = {DType::kF32, DType::kF16, DType::kBF16};

TEST(MatmulCuda, equals_reference_over_shapes_and_types) {
  OCTAVO_REQUIRE_GPU();
  struct {
    std::int64_t rows, width, inner;
  } constexpr kShapes[] = {{1, 64, 64},   {7, 96, 128}, {333, 80, 112}, {1000, 32, 64}, {64, 136, 192},
                           {129, 48, 64}, {7, 37, 53},  {33, 4, 100},   {1, 1, 1},      {20, 130, 192}};
  for (const auto& shape : kShapes) {
    for (const DType x : {DType::kF32, DType::kBF16}) {
      for (const DType weight : kFloats) {
        for (const DType out : {DType::kF32, DType::kBF16}) {
          check({.rows = shape.rows,
                 .inner = shape.inner,
                 .width = shape.width,
                 .x = x,
                 .weight = weight,
                 .out = out,
                 .bias_dtype = out});
        }
      }
    }
  }
}

TEST(MatmulCuda, equals_reference_with_every_epilogue) {
  OCTAVO_REQUIRE_GPU();
  for (const DType x : {DType::kF32, DType::kBF16}) {
    for (const Activation activation :
         {Activation::kNone, Activation::kSilu, Activation::kGeluTanh, Activation::kGeluErf, Activation::kQuickGelu}) {
      for (const DType out : {DType::kF32, DType::kBF16}) {
        for (const DType bias_dtype : {DType::kF32, DType::kBF16}) {
          const Case plain{
              .batch = 2, .rows = 20, .x = x, .out = out, .bias_dtype = bias_dtype, .activation = activation};
          check(plain);
          for (const bool gate : {false, true}) {
            for (const bool in_place : {false, true}) {
              Case with = plain;
              with.gate = gate;
              with.residual = true;
              with.residual_is_out = in_place;
              check(with);
            }
          }
        }
        check({.batch = 2, .rows = 20, .x = x, .out = out, .bias = false, .activation = activation});
      }
    }
  }
}

TEST(MatmulCuda, rows_of_x_and_out_may_be_strided) {
  OCTAVO_REQUIRE_GPU();
  for (const DType x : {DType::kF32, DType::kBF16}) {
    for (const std::int64_t x_padding : {0, 16, 3}) {
      for (const std::int64_t out_padding : {0, 48, 5}) {
        for (const bool residual : {false, true}) {
          check({.batch = 2,
                 .rows = 66,
                 .x = x,
                 .residual = residual,
                 .residual_is_out = residual,
                 .x_padding = x_padding,
                 .out_padding = out_padding});
          check({.batch = 2,
                 .rows = 130,
                 .x = x,
                 .activation = Activation::kGeluTanh,
                 .gate = residual,
                 .residual = residual,
                 .x_padding = x_padding,
                 .out_padding = out_padding});
        }
      }
    }
  }
}

TEST(MatmulCuda, reads_and_writes_slices_of_joint_buffers_and_nothing_else) {
  OCTAVO_REQUIRE_GPU();
  TestContext cpu;
  GpuContext gpu;
  for (const DType x : {DType::kBF16, DType::kF32}) {
    const TestTensor joint_x = TestTensor::random(x, Shape{2, 30, 64}, 1);
    const TestTensor weight = TestTensor::random(DType::kBF16, Shape{48, 64}, 2);
    TestTensor expected(DType::kBF16, Shape{2, 30, 48});
    matmul(cpu.with_row("matmul", "reference"), {.x = joint_x.view().slice(1, 10, 15),
                                                 .weight = {.plain = weight},
                                                 .epilogue = {},
                                                 .out = expected.view().slice(1, 8, 15)});
    const auto packed = pack_matmul_weight(gpu.device(), weight, x);
    ASSERT_TRUE(packed.ok());
    const GpuTensor gpu_x(gpu, joint_x);
    const GpuTensor out(gpu, TestTensor(DType::kBF16, Shape{2, 30, 48}));
    matmul(gpu.get(),
           {.x = gpu_x.view().slice(1, 10, 15), .weight = *packed, .epilogue = {}, .out = out.view().slice(1, 8, 15)});
    EXPECT_TRUE(expect_close(out.download(), expected, op_tolerance(DType::kBF16)));  // NaN elsewhere in both
  }
}

TEST(MatmulCuda, many_rows_come_in_chunks) {
  OCTAVO_REQUIRE_GPU();
  GpuContext gpu;
  // 70 MB of sums: the gate keeps cuBLASLt from writing out itself.
  constexpr std::int64_t kRows = 1100, kWidth = 16384, kInner = 64;
  const TestTensor x = TestTensor::random(DType::kBF16, Shape{kRows, kInner}, 1);
  const TestTensor weight = TestTensor::random(DType::kBF16, Shape{kWidth, kInner}, 2);
  const TestTensor gate = TestTensor::random(DType::kF32, Shape{1, kWidth}, 3);
  const auto packed = pack_matmul_weight(gpu.device(), weight, DType::kBF16);
  ASSERT_TRUE(packed.ok());
  const GpuTensor gpu_x(gpu, x), gpu_gate(gpu, gate);
  const auto rows_alone = [&](std::int64_t begin, std::int64_t rows) {
    const GpuTensor out(gpu, TestTensor(DType::kF32, Shape{rows, kWidth}));
    MatmulArgs args;
    args.x = gpu_x.view().slice(0, begin, rows);
    args.weight = *packed;
    args.epilogue.gate = gpu_gate;
    args.out = out;
    matmul(gpu.get(), args);
    return out.download();
  };
  const TestTensor all = rows_alone(0, kRows);
  for (const std::int64_t begin : {0, 600}) {
    EXPECT_TRUE(expect_close(all.view().slice(0, begin, 500), rows_alone(begin, 500), testing::kOpF32));
  }
}

TEST(MatmulCuda, lower_architectures_compute_the_same) {
  OCTAVO_REQUIRE_GPU();
  for (const int architecture : {80, 89}) {
    for (const DType x : {DType::kF32, DType::kBF16}) {
      for (const DType weight : kFloats) {
        check({.rows = 33, .x = x, .weight = weight, .activation = Activation::kGeluTanh}, architecture);
      }
    }
  }
}

TEST(MatmulCuda, a_captured_product_replays) {
  OCTAVO_REQUIRE_GPU();
  GpuContext gpu;
  if (!gpu.get().stream().supports_capture()) GTEST_SKIP();
  const TestTensor x = TestTensor::random(DType::kBF16, Shape{50, 64}, 1);
  const TestTensor weight = TestTensor::random(DType::kBF16, Shape{64, 64}, 2);
  const auto packed = pack_matmul_weight(gpu.device(), weight, DType::kBF16);
  ASSERT_TRUE(packed.ok());
  const GpuTensor gpu_x(gpu, x);
  GpuTensor out(gpu, TestTensor(DType::kBF16, Shape{50, 64})), again(gpu, TestTensor(DType::kBF16, Shape{50, 64}));
  const auto run = [&](const GpuTensor& to) {
    matmul(gpu.get(), {.x = gpu_x, .weight = *packed, .epilogue = {}, .out = to});
  };
  run(out);
  gpu.get().stream().begin_capture();
  run(again);
  const auto graph = gpu.get().stream().end_capture();
  graph->launch();
  EXPECT_TRUE(same_bits(again.download(), out.download()));
}

class ChoiceFile : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("octavo-choices-" + random_id());
    path_ = folder_ / "deeper" / "file";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string content() const {
    std::ifstream file(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void overwrite(const std::string& content) const { std::ofstream(path_, std::ios::binary) << content; }
  std::filesystem::path folder_, path_;
};

TEST_F(ChoiceFile, gives_back_what_was_added_for_the_identity) {
  EXPECT_TRUE(read_choices(path_, "gpu").empty());
  const std::string bytes("\0\xff\n", 3);
  ASSERT_TRUE(add_choices(path_, "gpu", {{bytes, "one"}, {"b", ""}}).ok());
  ASSERT_TRUE(add_choices(path_, "gpu", {{"b", "two"}}).ok());
  EXPECT_EQ(read_choices(path_, "gpu"), (Choices{{bytes, "one"}, {"b", "two"}}));
  EXPECT_TRUE(read_choices(path_, "another gpu").empty());
  ASSERT_TRUE(add_choices(path_, "another gpu", {{"c", "three"}}).ok());
  EXPECT_EQ(read_choices(path_, "another gpu"), (Choices{{"c", "three"}}));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(path_.parent_path()), {}), 1);
}

TEST_F(ChoiceFile, is_as_good_as_absent_when_any_byte_is_wrong) {
  ASSERT_TRUE(add_choices(path_, "gpu", {{"key", "value"}, {"key 2", "value 2"}}).ok());
  const std::string whole = content();
  for (std::size_t i = 0; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
    overwrite(damaged);
    EXPECT_TRUE(read_choices(path_, "gpu").empty()) << i;
    overwrite(whole.substr(0, i));
    EXPECT_TRUE(read_choices(path_, "gpu").empty()) << i;
  }
  overwrite(whole + "x");
  EXPECT_TRUE(read_choices(path_, "gpu").empty());
  // Counts that lie, under a digest that is right.
  std::string lying = whole.substr(0, whole.size() - 64);
  lying[17] = '\x7f';
  overwrite(lying + sha256_hex(lying));
  EXPECT_TRUE(read_choices(path_, "gpu").empty());
  overwrite(whole);
  EXPECT_EQ(read_choices(path_, "gpu").size(), 2u);
}

TEST_F(ChoiceFile, that_cannot_be_written_is_an_error_that_names_it) {
  std::filesystem::create_directories(path_);  // a folder is where the file should be
  const Status status = add_choices(path_, "gpu", {{"a", "b"}});
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(status.subject(), path_.string());
}

}  // namespace
}  // namespace octavo::ops
