#include "ops/cast/cast_kernels.h"
#include "ops/rows.h"

namespace octavo::ops {
namespace {

void cast_row(const Row& x, const Row& out, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) out.set(i, x[i]);
}

}  // namespace

void cast_reference(ExecutionContext&, const CastArgs& args, void*) {
  const auto& [x, out] = args;
  const std::int64_t count = x.dim(-1);
  switch (x.rank()) {
    case 1:
      cast_row(Row(x, {}), Row(out, {}), count);
      return;
    case 2:
      for (std::int64_t i = 0; i < x.dim(0); ++i) cast_row(Row(x, {i}), Row(out, {i}), count);
      return;
    case 3:
      for (std::int64_t i = 0; i < x.dim(0); ++i)
        for (std::int64_t j = 0; j < x.dim(1); ++j) cast_row(Row(x, {i, j}), Row(out, {i, j}), count);
      return;
    default:
      for (std::int64_t i = 0; i < x.dim(0); ++i)
        for (std::int64_t j = 0; j < x.dim(1); ++j)
          for (std::int64_t k = 0; k < x.dim(2); ++k) cast_row(Row(x, {i, j, k}), Row(out, {i, j, k}), count);
  }
}

}  // namespace octavo::ops
