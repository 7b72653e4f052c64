// SharedWorld::join without the world. Private to this room.
#pragma once

#include <memory>

#include "parallel/transport/shared_memory.h"
#include "parallel/transport/transport.h"

namespace chorus {

Result<std::unique_ptr<Transport>> make_shared_transport(std::shared_ptr<SharedMemory> memory, int rank, int timeout_ms,
                                                         std::vector<int> names);

}  // namespace chorus
