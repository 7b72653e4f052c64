#include "bench/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"

namespace chorus {

double mean(const std::vector<double>& values) {
  return values.empty() ? 0 : std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double standard_deviation(const std::vector<double>& values) {
  const double middle = mean(values);
  std::vector<double> squares;
  for (const double value : values) squares.push_back((value - middle) * (value - middle));
  return std::sqrt(mean(squares));
}

double median(std::vector<double> values) {
  return percentile(std::move(values), 50);
}

namespace {

double percentile_of_sorted(const std::vector<double>& values, double percent) {
  CHECK(!values.empty() && percent >= 0 && percent <= 100, "percentile {} of {} values", percent, values.size());
  const double at = percent / 100 * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(std::floor(at));
  const std::size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (at - static_cast<double>(below)) * (values[above] - values[below]);
}

}  // namespace

double percentile(std::vector<double> values, double percent) {
  std::sort(values.begin(), values.end());
  return percentile_of_sorted(values, percent);
}

std::vector<std::pair<double, double>> percentile_curve(std::vector<double> values, double factor) {
  std::vector<std::pair<double, double>> curve;
  std::sort(values.begin(), values.end());
  for (int percent = 0; percent <= 100 && !values.empty(); ++percent) {
    curve.emplace_back(percent, percentile_of_sorted(values, percent) * factor);
  }
  return curve;
}

}  // namespace chorus
