#include "telemetry/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "base/check.h"

namespace octavo::telemetry {
namespace {

using testing::HasSubstr;

// Dashboards and alerts are written against these names: a change here is a change users see.
TEST(Metrics, the_list_of_names_is_this_one) {
  std::vector<std::string> names;
  for (const MetricRow& row : metric_rows()) {
    names.push_back(std::string(row.name) + "{" + std::string(row.labels) + "}");
  }
  EXPECT_EQ(names, (std::vector<std::string>{
                       "octavo_requests_total{route code}", "octavo_request_seconds{route}", "octavo_connections{}",
                       "octavo_jobs_total{outcome}", "octavo_queue_length{}", "octavo_jobs_running{}",
                       "octavo_stage_seconds{stage}", "octavo_images_total{}", "octavo_process_start_time_seconds{}"}));
}

TEST(Metrics, series_with_known_labels_start_at_zero) {
  const std::string text = Metrics().exposition();
  for (const char* line : {"octavo_jobs_total{outcome=\"failed\"} 0\n", "octavo_images_total 0\n",
                           "octavo_queue_length 0\n", "octavo_stage_seconds_count{stage=\"denoise\"} 0\n",
                           "# TYPE octavo_stage_seconds histogram\n", "# HELP octavo_images_total "}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(Metrics, values_are_added_set_and_observed) {
  Metrics metrics;
  metrics.add(metric::kRequests, {"/metrics", "200"});
  metrics.add(metric::kRequests, {"/metrics", "200"}, 2);
  metrics.set(metric::kQueueLength, {}, 5);
  metrics.observe(metric::kStageSeconds, {"decode"}, 0.2);
  const std::string text = metrics.exposition();
  EXPECT_THAT(text, HasSubstr("octavo_requests_total{code=\"200\",route=\"/metrics\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("octavo_queue_length 5\n"));
  EXPECT_THAT(text, HasSubstr("octavo_stage_seconds_bucket{stage=\"decode\",le=\"0.1\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("octavo_stage_seconds_bucket{stage=\"decode\",le=\"0.25\"} 1\n"));
}

TEST(Metrics, misuse_is_a_check_failure) {
  Metrics metrics;
  EXPECT_THROW(metrics.add(metric::kRequests, {"only one"}), CheckFailure);
  EXPECT_THROW(metrics.set(metric::kRequests, {"/", "200"}, 1), CheckFailure);
}

}  // namespace
}  // namespace octavo::telemetry
