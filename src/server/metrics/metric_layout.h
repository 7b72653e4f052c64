// Where a metric's cells are: the same in every process of a server, which have the same configuration.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "server/metrics/metric_table.h"

namespace chorus {

struct MetricShape {
  int engines = 1;  // at the start
  int front_ends = 1;
  std::uint32_t max_model_len = 0;  // the largest bucket of tokens
  int engines_max = 0;              // with those that are added; never fewer than at the start
  int first_engine = 0;             // those before it are other servers'
};

// One series: of an engine (0 where the metric has no engine), of one of the row's values (0 likewise).
struct MetricSeries {
  int engine = 0;
  std::size_t value = 0;
};

class MetricLayout {
 public:
  explicit MetricLayout(const MetricShape& shape);

  const MetricShape& shape() const { return shape_; }
  std::size_t cells() const { return cells_; }
  // The series' first cell. A histogram has one for each bound, one beyond them, and its sum.
  std::size_t at(Metric metric, MetricSeries series) const;
  std::span<const double> bounds(MetricBuckets buckets) const { return bounds_[static_cast<std::size_t>(buckets)]; }
  // How many there is room for: memory that nobody writes to is not used.
  int engines(const MetricRow& row) const { return row.labels == MetricLabels::engine ? shape_.engines_max : 1; }

 private:
  std::size_t width(const MetricRow& row) const;

  MetricShape shape_;
  std::array<std::vector<double>, static_cast<std::size_t>(MetricBuckets::http) + 1> bounds_;
  std::array<std::size_t, metric_count> offsets_{};
  std::size_t cells_ = 0;
};

}  // namespace chorus
