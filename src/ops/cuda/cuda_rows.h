// The CUDA rows of every op: one line an op, called once when the backend is opened.
#pragma once

namespace octavo::ops {

void add_cuda_rows();

}  // namespace octavo::ops
