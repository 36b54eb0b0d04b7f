// The activations on vectors of float, for every kernel that ends in one. Include after hwy/foreach_target.h.
//
// Measured over every 97th float of [-87, 30] (AVX-512): |error| <= 1.8e-7 |x| (1.5 ulp of the linear part) for all,
// and relative to the result <= 3.6e-7 (6 ulp) for silu and gelu_erf from -13 up, <= 1.2e-6 for gelu_tanh and
// quick_gelu from -4 and -11 up; further out the exponential magnifies the rounding of its argument, where the
// results are below 2e-5 |x|.

#if defined(OCTAVO_OPS_ACTIVATION_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef OCTAVO_OPS_ACTIVATION_INL_H
#undef OCTAVO_OPS_ACTIVATION_INL_H
#else
#define OCTAVO_OPS_ACTIVATION_INL_H
#endif

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include "ops/activation/activation_kind.h"

HWY_BEFORE_NAMESPACE();
namespace octavo::ops::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// x * sigmoid(argument). The exponential's argument is never positive, so nothing overflows and the small values
/// of the negative side keep their relative accuracy.
template <class D>
HWY_INLINE hn::Vec<D> times_sigmoid(D d, hn::Vec<D> x, hn::Vec<D> argument) {
  const auto one = hn::Set(d, 1.0f);
  const auto e = hn::Exp(d, hn::Neg(hn::Abs(argument)));
  const auto numerator = hn::IfThenElse(hn::Ge(argument, hn::Zero(d)), one, e);
  return hn::Mul(x, hn::Div(numerator, hn::Add(one, e)));
}

template <class D>
HWY_INLINE hn::Vec<D> silu(D d, hn::Vec<D> x) {
  return times_sigmoid(d, x, x);
}

template <class D>
HWY_INLINE hn::Vec<D> quick_gelu(D d, hn::Vec<D> x) {
  return times_sigmoid(d, x, hn::Mul(hn::Set(d, 1.702f), x));
}

/// 0.5 (1 + tanh u) is sigmoid(2u): no cancellation on the negative side.
template <class D>
HWY_INLINE hn::Vec<D> gelu_tanh(D d, hn::Vec<D> x) {
  const auto linear = hn::Set(d, 1.5957691216f);    // 2 sqrt(2 / pi)
  const auto cubic = hn::Set(d, 0.0713548162726f);  // 0.044715 * 2 sqrt(2 / pi)
  const auto argument = hn::Mul(x, hn::MulAdd(hn::Mul(x, x), cubic, linear));
  return times_sigmoid(d, x, argument);
}

/// x Phi(x) through erfc(z) = exp(-z^2) p((z - 3) / (z + 3)), z = |x| / sqrt 2. The polynomial is our own minimax fit
/// of exp(z^2) erfc(z) on [0, 10.5] (relative error 1.4e-9 before rounding). z^2 = x^2 / 2 is carried with its
/// rounding error, which the exponential would magnify.
template <class D>
HWY_INLINE hn::Vec<D> gelu_erf(D d, hn::Vec<D> x) {
  constexpr float kCoefficients[] = {2.91952165e-05f, -0.000594430778f, 0.000715581933f, 0.00426876592f, -0.0243942123f,
                                     0.0716658831f,   -0.150115788f,    0.2456038f,      -0.326233566f,  0.179001153f};
  const auto half = hn::Set(d, 0.5f);
  const auto magnitude = hn::Min(hn::Abs(x), hn::Set(d, 15.0f));  // erfc is zero in float from 14.3 on
  const auto square = hn::Mul(magnitude, magnitude);
  const auto rounding = hn::MulSub(magnitude, magnitude, square);
  auto e = hn::Exp(d, hn::Mul(square, hn::Set(d, -0.5f)));
  e = hn::NegMulAdd(e, hn::Mul(rounding, half), e);
  const auto z = hn::Mul(magnitude, hn::Set(d, 0.70710678118654752f));
  const auto t = hn::Div(hn::Sub(z, hn::Set(d, 3.0f)), hn::Add(z, hn::Set(d, 3.0f)));
  auto p = hn::Set(d, 5.60513436e-05f);
  for (const float coefficient : kCoefficients) p = hn::MulAdd(p, t, hn::Set(d, coefficient));
  const auto tail = hn::Mul(hn::Mul(e, p), half);  // Phi(-|x|)
  const auto phi = hn::IfThenElse(hn::Ge(x, hn::Zero(d)), hn::Sub(hn::Set(d, 1.0f), tail), tail);
  return hn::Mul(x, phi);
}

/// body(activate) where activate(d, x) applies `kind`: the choice is made once, outside the loop.
template <class Body>
HWY_INLINE void with_activation(Activation kind, const Body& body) {
  switch (kind) {
    case Activation::kNone:
      body([](auto, auto x) HWY_ATTR { return x; });
      return;
    case Activation::kSilu:
      body([](auto d, auto x) HWY_ATTR { return silu(d, x); });
      return;
    case Activation::kGeluTanh:
      body([](auto d, auto x) HWY_ATTR { return gelu_tanh(d, x); });
      return;
    case Activation::kGeluErf:
      body([](auto d, auto x) HWY_ATTR { return gelu_erf(d, x); });
      return;
    case Activation::kQuickGelu:
      body([](auto d, auto x) HWY_ATTR { return quick_gelu(d, x); });
      return;
  }
}

}  // namespace octavo::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
