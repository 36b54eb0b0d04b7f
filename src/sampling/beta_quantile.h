// Quantiles of the beta distribution, for the schedule of that name.
#pragma once

namespace octavo::sampling {

/// The regularised incomplete beta function I_x(a, b), x in [0, 1], a and b above 0: the continued fraction of DLMF
/// 8.17.22, to about 1e-14.
double incomplete_beta(double x, double a, double b);

/// The x with incomplete_beta(x, a, b) = probability, in [0, 1].
double beta_quantile(double probability, double a, double b);

}  // namespace octavo::sampling
