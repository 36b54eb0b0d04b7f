#include "sampling/beta_quantile.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace octavo::sampling {
namespace {

TEST(IncompleteBeta, has_the_closed_forms) {
  for (const double x : {0.0, 1e-9, 0.1, 0.4, 0.5, 0.77, 0.999, 1.0}) {
    EXPECT_NEAR(incomplete_beta(x, 1, 1), x, 1e-14) << x;
    EXPECT_NEAR(incomplete_beta(x, 2, 1), x * x, 1e-14) << x;
    EXPECT_NEAR(incomplete_beta(x, 1, 3), 1 - std::pow(1 - x, 3), 1e-14) << x;
    // The arcsine law.
    EXPECT_NEAR(incomplete_beta(x, 0.5, 0.5), 2 / std::numbers::pi * std::asin(std::sqrt(x)), 1e-13) << x;
  }
}

TEST(BetaQuantile, inverts_it) {
  for (const double parameter : {0.5, 0.6, 1.0, 3.0}) {
    for (int i = 0; i <= 50; ++i) {
      const double x = beta_quantile(i / 50.0, parameter, parameter);
      EXPECT_NEAR(incomplete_beta(x, parameter, parameter), i / 50.0, 1e-12) << parameter << " " << i;
    }
  }
}

TEST(BetaQuantile, of_the_schedule_s_parameters_agrees_with_scipy) {
  // scipy.stats.beta.ppf(p, 0.6, 0.6), scipy 1.17.
  EXPECT_NEAR(beta_quantile(0.001, 0.6, 0.6), 1.8558738517452e-05, 1e-12);
  EXPECT_NEAR(beta_quantile(0.05, 0.6, 0.6), 0.0125544568736114, 1e-12);
  EXPECT_NEAR(beta_quantile(0.2, 0.6, 0.6), 0.122921750458333, 1e-12);
  EXPECT_NEAR(beta_quantile(0.37, 0.6, 0.6), 0.322794002097361, 1e-12);
  EXPECT_NEAR(beta_quantile(0.5, 0.6, 0.6), 0.5, 1e-12);
  EXPECT_NEAR(beta_quantile(0.9, 0.6, 0.6), 0.960415594411219, 1e-12);
  EXPECT_NEAR(beta_quantile(0.995, 0.6, 0.6), 0.999728686743104, 1e-12);
}

}  // namespace
}  // namespace octavo::sampling
