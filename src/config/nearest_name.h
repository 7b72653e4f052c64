// "Did you mean": the known name nearest to a misspelt one.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace chorus {

// The known name nearest to `name` by edit distance (insertion, deletion, substitution, swap of neighbours; dashes and
// underscores are the same, as are upper and lower case), if it is within a third of the length. The first of equals.
std::optional<std::string> nearest_name(const std::string& name, const std::vector<std::string>& known);

}  // namespace chorus
