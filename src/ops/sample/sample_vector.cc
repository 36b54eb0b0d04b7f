#include "ops/vector_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/sample/sample_vector.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h.
#include "ops/rows.h"
#include "ops/sample/sample_kernels.h"
#include "ops/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace octavo::ops::HWY_NAMESPACE {

/// Products and sums are separate operations on purpose: MulAdd would round once where PyTorch rounds twice.
void lincomb_elements(const LincombArgs& args, std::int64_t begin, std::int64_t end) {
  float* out = args.out.f32() + begin;
  for_each_vector(end - begin, [&](auto d, std::int64_t i) HWY_ATTR {
    const auto product = [&](int term) HWY_ATTR {
      const auto& [coefficient, input] = args.terms[static_cast<std::size_t>(term)];
      return hn::Mul(hn::Set(d, coefficient), load(d, static_cast<const float*>(input.data()) + begin + i));
    };
    auto sum = product(0);
    for (int term = 1; term < args.term_count; ++term) sum = hn::Add(sum, product(term));
    store(d, sum, out + i);
  });
}

void guidance_elements(const GuidanceArgs& args, std::int64_t begin, std::int64_t end) {
  const float* uncond = args.uncond.f32() + begin;
  const float* cond = args.cond.f32() + begin;
  float* out = args.out.f32() + begin;
  for_each_vector(end - begin, [&](auto d, std::int64_t i) HWY_ATTR {
    const auto from = load(d, uncond + i);
    const auto difference = hn::Sub(load(d, cond + i), from);
    store(d, hn::Add(from, hn::Mul(hn::Set(d, args.guidance_scale), difference)), out + i);
  });
}

/// Rows [begin, end) of [B, height]: a row of the image is gathered from C planes. Plain loops: the division hides
/// nothing worth more in a pass over 16 channels of latents.
void latents_to_decoder_rows(const LatentsToDecoderArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t channels = args.latents.dim(1);
  const std::int64_t width = args.latents.dim(3);
  for (std::int64_t row = begin; row < end; ++row) {
    const std::int64_t b = row / args.latents.dim(2);
    const std::int64_t y = row % args.latents.dim(2);
    with_f32_or_bf16(args.out.dtype(), Row::address(args.out, {b, y, 0}), [&](auto* out) HWY_ATTR {
      const hn::CappedTag<float, 1> one;
      for (std::int64_t c = 0; c < channels; ++c) {
        const auto* latents = static_cast<const float*>(Row::address(args.latents, {b, c, y}));
        for (std::int64_t x = 0; x < width; ++x) {
          const float value = latents[x] / args.scaling_factor + args.shift_factor;
          store(one, hn::Set(one, value), out + x * args.out.stride(2) + c);
        }
      }
    });
  }
}

/// Rows [begin, end) of [B, height].
void to_pixels_rows(const ToPixelsArgs& args, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    const std::int64_t b = row / args.x.dim(1);
    const std::int64_t y = row % args.x.dim(1);
    auto* out = static_cast<std::uint8_t*>(Row::address(args.out, {b, y, 0}));
    with_f32_or_bf16(args.x.dtype(), Row::address(args.x, {b, y, 0}), [&](const auto* x) HWY_ATTR {
      for_each_vector(3 * args.x.dim(2), [&](auto d, std::int64_t i) HWY_ATTR {
        const auto half = hn::Set(d, 0.5f);
        auto value = hn::Add(hn::Mul(load(d, x + i), half), half);
        // Comparisons with NaN are false: it becomes 0.
        value = hn::IfThenElseZero(hn::Gt(value, hn::Zero(d)), value);
        value = hn::Mul(hn::Min(value, hn::Set(d, 1.0f)), hn::Set(d, 255.0f));
        const hn::Rebind<std::uint8_t, decltype(d)> d8;
        hn::StoreU(hn::DemoteTo(d8, hn::NearestInt(value)), d8, out + i);  // NearestInt rounds ties to even
      });
    });
  }
}

bool all_finite(const float* x, std::int64_t count) {
  // x - x is 0 for what is finite and NaN for the rest; NaN survives the sum.
  const float sum = sum_terms(count, [&](auto d, std::int64_t i) HWY_ATTR {
    const auto value = load(d, x + i);
    return hn::Sub(value, value);
  });
  return sum == 0.0f;
}

}  // namespace octavo::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace octavo::ops {

HWY_EXPORT(lincomb_elements);
HWY_EXPORT(guidance_elements);
HWY_EXPORT(latents_to_decoder_rows);
HWY_EXPORT(to_pixels_rows);
HWY_EXPORT(all_finite);

void lincomb_elements(const LincombArgs& args, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(lincomb_elements)(args, begin, end);
}
void guidance_elements(const GuidanceArgs& args, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(guidance_elements)(args, begin, end);
}
void latents_to_decoder_rows(const LatentsToDecoderArgs& args, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(latents_to_decoder_rows)(args, begin, end);
}
void to_pixels_rows(const ToPixelsArgs& args, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(to_pixels_rows)(args, begin, end);
}
void check_finite_vector(ExecutionContext&, const CheckFiniteArgs& args, void*) {
  *args.all_finite.as<std::int32_t>() = HWY_DYNAMIC_DISPATCH(all_finite)(args.x.f32(), args.x.element_count()) ? 1 : 0;
}

}  // namespace octavo::ops
#endif  // HWY_ONCE
