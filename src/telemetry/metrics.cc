#include "telemetry/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <array>
#include <map>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "telemetry/stages.h"

namespace octavo::telemetry {
namespace {

constexpr std::array kRows = {metric::kRequests,     metric::kRequestSeconds, metric::kConnections,
                              metric::kJobs,         metric::kQueueLength,    metric::kJobsRunning,
                              metric::kStageSeconds, metric::kImages,         metric::kProcessStart};

constexpr std::array<std::string_view, 5> kJobOutcomes = {"succeeded", "interrupted", "cancelled", "failed",
                                                          "rejected"};

/// From a scrape (1 ms) to a long job: pictures take 0.1 s on a GPU to minutes on two cores.
const prometheus::Histogram::BucketBoundaries kSecondsBuckets = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                                                 0.5,   1,      2.5,   5,    10,    30,   60,  120};

std::vector<std::string> split(std::string_view names) {
  std::vector<std::string> parts;
  while (!names.empty()) {
    const std::size_t end = names.find(' ');
    parts.emplace_back(names.substr(0, end));
    names = end == std::string_view::npos ? std::string_view() : names.substr(end + 1);
  }
  return parts;
}

prometheus::Labels labels_of(const MetricRow& row, std::initializer_list<std::string_view> values) {
  const std::vector<std::string> names = split(row.labels);
  OCTAVO_CHECK(names.size() == values.size(), "{} has {} labels, {} given", row.name, names.size(), values.size());
  prometheus::Labels labels;
  std::size_t i = 0;
  for (const std::string_view value : values) labels[names[i++]] = std::string(value);
  return labels;
}

}  // namespace

std::span<const MetricRow> metric_rows() { return kRows; }

struct Metrics::Registry {
  prometheus::Registry registry;
  std::map<std::string_view, prometheus::Family<prometheus::Counter>*> counters;
  std::map<std::string_view, prometheus::Family<prometheus::Gauge>*> gauges;
  std::map<std::string_view, prometheus::Family<prometheus::Histogram>*> histograms;

  template <typename Families>
  static auto& family(const Families& families, const MetricRow& row) {
    const auto found = families.find(row.name);
    OCTAVO_CHECK(found != families.end(), "{} is not a metric of this kind", row.name);
    return *found->second;
  }
};

Metrics::Metrics() : registry_(std::make_unique<Registry>()) {
  for (const MetricRow& row : kRows) {
    const std::string name(row.name), help(row.help);
    switch (row.kind) {
      case MetricKind::kCounter:
        registry_->counters[row.name] = &prometheus::BuildCounter().Name(name).Help(help).Register(registry_->registry);
        break;
      case MetricKind::kGauge:
        registry_->gauges[row.name] = &prometheus::BuildGauge().Name(name).Help(help).Register(registry_->registry);
        break;
      case MetricKind::kHistogram:
        registry_->histograms[row.name] =
            &prometheus::BuildHistogram().Name(name).Help(help).Register(registry_->registry);
        break;
    }
  }
  for (const std::string_view stage : kStages) {
    Registry::family(registry_->histograms, metric::kStageSeconds)
        .Add(labels_of(metric::kStageSeconds, {stage}), kSecondsBuckets);
  }
  for (const std::string_view outcome : kJobOutcomes) add(metric::kJobs, {outcome}, 0);
  add(metric::kImages, {}, 0);
  for (const MetricRow& gauge : {metric::kConnections, metric::kQueueLength, metric::kJobsRunning}) set(gauge, {}, 0);
  set(metric::kProcessStart, {},
      std::chrono::duration<double>(octavo::system_clock().wall_now().time_since_epoch()).count());
}

Metrics::~Metrics() = default;

void Metrics::add(const MetricRow& counter, std::initializer_list<std::string_view> labels, double amount) {
  Registry::family(registry_->counters, counter).Add(labels_of(counter, labels)).Increment(amount);
}

void Metrics::set(const MetricRow& gauge, std::initializer_list<std::string_view> labels, double value) {
  Registry::family(registry_->gauges, gauge).Add(labels_of(gauge, labels)).Set(value);
}

void Metrics::observe(const MetricRow& histogram, std::initializer_list<std::string_view> labels, double value) {
  Registry::family(registry_->histograms, histogram).Add(labels_of(histogram, labels), kSecondsBuckets).Observe(value);
}

std::string Metrics::exposition() const {
  return prometheus::TextSerializer().Serialize(registry_->registry.Collect());
}

}  // namespace octavo::telemetry
