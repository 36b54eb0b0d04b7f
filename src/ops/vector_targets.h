// Which instruction sets the vectorised kernels are compiled for: AVX2 and AVX-512 on x86, plus the compiler's
// baseline. Include before any Highway header. The sets left out would double the compile time for machines that the
// reference rows serve well enough.
#pragma once

#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
