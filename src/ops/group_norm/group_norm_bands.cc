#include "ops/group_norm/group_norm_bands.h"

#include "ops/group_norm/group_norm_kernels.h"
#include "ops/require.h"

namespace octavo::ops {
namespace {

void require_band(std::string_view op, std::string_view argument, const TensorView& view) {
  require_rank(op, argument, view, 4);
  require_dtype(op, argument, view, {DType::kF32, DType::kBF16});
  require_contiguous(op, argument, view);
  OCTAVO_CHECK(view.dim(0) == 1 && view.element_count() > 0, "op {}: {} is {}, expected rows of one picture", op,
               argument, view.shape().to_string());
}

void require_floats(std::string_view op, std::string_view argument, const TensorView& view, const Shape& shape) {
  require_shape(op, argument, view, shape);
  require_dtype(op, argument, view, {DType::kF32});
  require_contiguous(op, argument, view);
}

template <typename Args>
bool has_avx2(const Args&, const DeviceTraits& traits) {
  return traits.has_avx2;
}

}  // namespace

KernelTable<GroupNormMeasureArgs>& group_norm_measure_table() {
  static KernelTable<GroupNormMeasureArgs> table(
      "group_norm_measure", {{.name = "vector", .supports = has_avx2, .run = group_norm_measure_vector},
                             {.name = "reference", .run = group_norm_measure_reference}});
  return table;
}

void group_norm_measure(ExecutionContext& context, const GroupNormMeasureArgs& args) {
  constexpr std::string_view op = "group_norm_measure";
  require_band(op, "x", args.x);
  require_rank(op, "statistics", args.statistics, 3);
  require_floats(op, "statistics", args.statistics, Shape{args.statistics.dim(0), 2, args.x.dim(3)});
  const std::int64_t pixels = args.x.dim(1) * args.x.dim(2);
  OCTAVO_CHECK(args.first_pixel >= 0 && args.first_pixel % kBlockPixels == 0 &&
                   group_norm_blocks(args.first_pixel + pixels) <= args.statistics.dim(0),
               "op group_norm_measure: {} pixels from {} in {} blocks", pixels, args.first_pixel,
               args.statistics.dim(0));
  group_norm_measure_table().dispatch(context, args);
}

KernelTable<GroupNormJoinArgs>& group_norm_join_table() {
  static KernelTable<GroupNormJoinArgs> table("group_norm_join",
                                              {{.name = "reference", .run = group_norm_join_reference}});
  return table;
}

void group_norm_join(ExecutionContext& context, const GroupNormJoinArgs& args) {
  constexpr std::string_view op = "group_norm_join";
  require_rank(op, "statistics", args.statistics, 3);
  const std::int64_t channels = args.statistics.dim(2);
  require_floats(op, "statistics", args.statistics, Shape{group_norm_blocks(args.pixels), 2, channels});
  require_floats(op, "weight", args.weight, Shape{channels});
  require_floats(op, "coefficients", args.coefficients, Shape{2, channels});
  OCTAVO_CHECK(args.groups > 0 && channels % args.groups == 0, "op group_norm_join: {} groups of {} channels",
               args.groups, channels);
  group_norm_join_table().dispatch(context, args);
}

KernelTable<GroupNormApplyArgs>& group_norm_apply_table() {
  static KernelTable<GroupNormApplyArgs> table(
      "group_norm_apply", {{.name = "vector", .supports = has_avx2, .run = group_norm_apply_vector},
                           {.name = "reference", .run = group_norm_apply_reference}});
  return table;
}

void group_norm_apply(ExecutionContext& context, const GroupNormApplyArgs& args) {
  constexpr std::string_view op = "group_norm_apply";
  require_band(op, "x", args.x);
  require_band(op, "out", args.out);
  require_shape(op, "out", args.out, args.x.shape());
  require_floats(op, "coefficients", args.coefficients, Shape{2, args.x.dim(3)});
  require_floats(op, "bias", args.bias, Shape{args.x.dim(3)});
  group_norm_apply_table().dispatch(context, args);
}

}  // namespace octavo::ops
