#include "config/nearest_name.h"

#include <algorithm>
#include <cctype>

namespace chorus {
namespace {

std::string folded(const std::string& name) {
  std::string result;
  for (const char letter : name) {
    result.push_back(letter == '_' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(letter))));
  }
  return result;
}

// Damerau-Levenshtein distance in its optimal string alignment form: three rows of the usual table.
std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> before(b.size() + 1), previous(b.size() + 1), current(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) previous[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    current[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substitution = previous[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      current[j] = std::min({previous[j] + 1, current[j - 1] + 1, substitution});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        current[j] = std::min(current[j], before[j - 2] + 1);
    }
    std::swap(before, previous);
    std::swap(previous, current);
  }
  return previous[b.size()];
}

}  // namespace

std::optional<std::string> nearest_name(const std::string& name, const std::vector<std::string>& known) {
  constexpr std::size_t length_max = 256;  // a longer one is no slip of the fingers, and the table is quadratic
  if (name.empty() || name.size() > length_max) return std::nullopt;
  const std::string wanted = folded(name);
  std::optional<std::string> nearest;
  std::size_t distance_min = std::max<std::size_t>(2, name.size() / 3) + 1;
  for (const std::string& candidate : known) {
    if (candidate.size() > length_max) continue;
    const std::size_t distance = edit_distance(wanted, folded(candidate));
    if (distance >= distance_min || distance >= candidate.size()) continue;
    distance_min = distance;
    nearest = candidate;
  }
  return nearest;
}

}  // namespace chorus
