// What many measurements come to.
#pragma once

#include <vector>

namespace chorus {

double mean(const std::vector<double>& values);  // 0 of none
double median(std::vector<double> values);
// The value below which `percent` of the values lie, interpolated linearly between neighbours (as numpy.percentile).
double percentile(std::vector<double> values, double percent);

}  // namespace chorus
