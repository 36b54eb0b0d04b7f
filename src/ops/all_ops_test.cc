#include "ops/all_ops.h"

#include <gtest/gtest.h>

namespace octavo::ops {
namespace {

TEST(AllOps, are_sorted_unique_and_end_with_the_reference) {
  std::string_view previous;
  for (const KernelTableBase* table : all_tables()) {
    EXPECT_LT(previous, table->op());
    previous = table->op();
    EXPECT_EQ(table->row_names().back(), "reference") << table->op();
  }
}

TEST(AllOps, overrides_must_name_an_op_and_one_of_its_rows) {
  EXPECT_TRUE(check_overrides({}).ok());
  EXPECT_TRUE(check_overrides({{"attention", "reference"}, {"matmul", "onednn_packed"}}).ok());
  const Status no_op = check_overrides({{"attn", "reference"}});
  EXPECT_EQ(no_op.code(), ErrorCode::kInvalidArgument);
  EXPECT_NE(no_op.message().find("attention"), std::string::npos) << no_op.message();
  const Status no_row = check_overrides({{"attention", "magic"}});
  EXPECT_EQ(no_row.code(), ErrorCode::kInvalidArgument);
  EXPECT_NE(no_row.message().find("flash"), std::string::npos) << no_row.message();
}

}  // namespace
}  // namespace octavo::ops
