#include "server/metrics/metric_layout.h"

#include <algorithm>

#include "base/check.h"
#include "request/engine_load.h"

namespace chorus {
namespace {

// 1, 2, 5, 10, 20, ... up to the longest sequence.
std::vector<double> token_bounds(std::uint32_t max_model_len) {
  std::vector<double> bounds;
  for (double decade = 1;; decade *= 10) {
    for (const double step : {1., 2., 5.}) {
      if (decade * step > max_model_len) return bounds;
      bounds.push_back(decade * step);
    }
  }
}

}  // namespace

MetricLayout::MetricLayout(const MetricShape& shape) : shape_(shape) {
  shape_.engines_max = std::max(shape.engines_max, shape.engines);
  const auto of = [this](MetricBuckets buckets) -> std::vector<double>& {
    return bounds_[static_cast<std::size_t>(buckets)];
  };
  of(MetricBuckets::tokens) = token_bounds(shape.max_model_len);
  of(MetricBuckets::choices) = {1, 2, 5, 10, 20};
  of(MetricBuckets::preemptions) = {1, 2, 3, 4, 5, 10, 20};
  of(MetricBuckets::step_rows).assign(std::begin(step_rows_bounds), std::end(step_rows_bounds));
  of(MetricBuckets::first_token) = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                    1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
  of(MetricBuckets::per_token) = {.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80};
  of(MetricBuckets::request) = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
  of(MetricBuckets::http) = {.1, .5, 1};
  for (const MetricRow& row : metric_rows()) {
    offsets_[static_cast<std::size_t>(row.metric)] = cells_;
    cells_ += static_cast<std::size_t>(engines(row)) * std::max<std::size_t>(row.values.size(), 1) * width(row);
  }
  constexpr std::size_t cells_a_line = 8;  // two writers share no line of a cache
  cells_ = (cells_ + cells_a_line - 1) / cells_a_line * cells_a_line;
}

std::size_t MetricLayout::width(const MetricRow& row) const {
  return row.kind == MetricKind::histogram ? bounds(row.buckets).size() + 2 : 1;
}

std::size_t MetricLayout::at(Metric metric, MetricSeries series) const {
  const MetricRow& row = row_of(metric);
  const std::size_t values = std::max<std::size_t>(row.values.size(), 1);
  CHECK(series.engine >= 0 && series.engine < engines(row) && series.value < values, "{}: engine {}, value {}",
        row.name, series.engine, series.value);
  const std::size_t number = static_cast<std::size_t>(series.engine) * values + series.value;
  return offsets_[static_cast<std::size_t>(metric)] + number * width(row);
}

}  // namespace chorus
