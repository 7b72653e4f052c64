// SharedWorld::join without the world. Private to this room.
#pragma once

#include <memory>

#include "dist/shared_memory.h"
#include "dist/transport.h"

namespace chorus {

Result<std::unique_ptr<Transport>> make_shared_transport(std::shared_ptr<SharedMemory> memory, int rank, int timeout_ms,
                                                         std::vector<int> names);

}  // namespace chorus
