// What many measurements come to.
#pragma once

#include <utility>
#include <vector>

namespace chorus {

double mean(const std::vector<double>& values);                // 0 of none
double standard_deviation(const std::vector<double>& values);  // of the population, as numpy.std; 0 of none
double median(std::vector<double> values);
// The value below which `percent` of the values lie, interpolated linearly between neighbours (as numpy.percentile).
double percentile(std::vector<double> values, double percent);

// Percentiles 0, 1, .. 100 and their values times `factor`; none of none.
std::vector<std::pair<double, double>> percentile_curve(std::vector<double> values, double factor);

}  // namespace chorus
