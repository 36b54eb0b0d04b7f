// Metrics: the one list of what the process counts, and the registry that holds the numbers.
// All functions are safe from any thread and take at most a short lock.
#pragma once

#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace octavo::telemetry {

enum class MetricKind { kCounter, kGauge, kHistogram };

/// One metric. Names end in their unit; `labels` are space separated.
struct MetricRow {
  std::string_view name;
  MetricKind kind;
  std::string_view labels;
  std::string_view help;
};

namespace metric {
inline constexpr MetricRow kRequests{"octavo_requests_total", MetricKind::kCounter, "route code",
                                     "HTTP answers by route and status; 499 = the client left first."};
inline constexpr MetricRow kRequestSeconds{"octavo_request_seconds", MetricKind::kHistogram, "route",
                                           "Time from a request's last byte to its answer."};
inline constexpr MetricRow kConnections{"octavo_connections", MetricKind::kGauge, "", "Open client connections."};
inline constexpr MetricRow kJobs{
    "octavo_jobs_total", MetricKind::kCounter, "outcome",
    "Ended jobs: succeeded, interrupted, cancelled, failed; rejected = refused at submission."};
inline constexpr MetricRow kQueueLength{"octavo_queue_length", MetricKind::kGauge, "", "Jobs waiting to be claimed."};
inline constexpr MetricRow kJobsRunning{"octavo_jobs_running", MetricKind::kGauge, "", "Jobs claimed by a worker."};
inline constexpr MetricRow kStageSeconds{"octavo_stage_seconds", MetricKind::kHistogram, "stage",
                                         "Time a job spent in a stage (telemetry/stages.h names them)."};
inline constexpr MetricRow kImages{"octavo_images_total", MetricKind::kCounter, "", "Pictures drawn."};
inline constexpr MetricRow kProcessStart{"octavo_process_start_time_seconds", MetricKind::kGauge, "",
                                         "Start of the process, seconds since the Unix epoch."};
}  // namespace metric

/// Every row above, in this order.
std::span<const MetricRow> metric_rows();

class Metrics {
 public:
  /// Registers every row; series whose labels are known (stages, outcomes, no labels) start at zero, so that a rate
  /// over the first event is not lost.
  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  /// `labels` are the values of the row's labels, in order. The row must be of the function's kind.
  void add(const MetricRow& counter, std::initializer_list<std::string_view> labels, double amount = 1);
  void set(const MetricRow& gauge, std::initializer_list<std::string_view> labels, double value);
  void observe(const MetricRow& histogram, std::initializer_list<std::string_view> labels, double value);

  /// Prometheus text format 0.0.4.
  std::string exposition() const;

 private:
  struct Registry;
  std::unique_ptr<Registry> registry_;
};

}  // namespace octavo::telemetry
