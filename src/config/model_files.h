// A model folder as something that a run which was cut off depends on.
#pragma once

#include <string>

namespace chorus {

// Tells one state of the folder from another by names, sizes and times of the files that a load may read: reading whole
// weights would take as long as loading them. Other files in the folder do not count: an output may be written there.
std::string model_files_digest(const std::string& directory);

}  // namespace chorus
