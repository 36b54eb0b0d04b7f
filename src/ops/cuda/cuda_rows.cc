#include "ops/cuda/cuda_rows.h"

namespace octavo::ops {

void add_cuda_rows() {}

}  // namespace octavo::ops
