#include "sampling/beta_quantile.h"

#include <cmath>

namespace octavo::sampling {
namespace {

/// DLMF 8.17.22 by the modified Lentz method (Thompson and Barnett 1986); converges fast for x < (a + 1) / (a + b + 2).
double continued_fraction(double x, double a, double b) {
  constexpr double kTiny = 1e-300;
  constexpr double kEnough = 1e-16;
  constexpr int kMaxTerms = 500;
  double value = 1.0, c = 1.0, d = 0.0;
  for (int term = 1; term <= kMaxTerms; ++term) {
    const int m = term / 2;
    double coefficient = 0.0;
    if (term == 1) {
      coefficient = 1.0;
    } else if (term % 2 == 0) {
      const int n = m - 1;
      coefficient = -(a + n) * (a + b + n) * x / ((a + 2 * n) * (a + 2 * n + 1));
    } else {
      coefficient = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    }
    d = 1.0 + coefficient * d;
    d = 1.0 / (std::abs(d) < kTiny ? kTiny : d);
    c = 1.0 + coefficient / c;
    if (std::abs(c) < kTiny) c = kTiny;
    const double factor = c * d;
    value *= factor;
    if (std::abs(factor - 1.0) < kEnough) break;
  }
  return value;
}

}  // namespace

double incomplete_beta(double x, double a, double b) {
  if (x <= 0.0) return 0.0;
  if (x >= 1.0) return 1.0;
  if (x > (a + 1.0) / (a + b + 2.0)) return 1.0 - incomplete_beta(1.0 - x, b, a);
  return std::pow(x, a) * std::pow(1.0 - x, b) / (a * std::beta(a, b)) * (continued_fraction(x, a, b) - 1.0);
}

double beta_quantile(double probability, double a, double b) {
  if (probability <= 0.0) return 0.0;
  if (probability >= 1.0) return 1.0;
  // Bisection: a few hundred evaluations a schedule, and nothing to go wrong.
  double low = 0.0, high = 1.0;
  for (int i = 0; i < 60; ++i) {
    const double middle = 0.5 * (low + high);
    (incomplete_beta(middle, a, b) < probability ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

}  // namespace octavo::sampling
