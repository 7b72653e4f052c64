// The inside of an engine process: one EngineCore behind one socket. engine_process_main(int) in fleet.h is this with
// the real executor; a test program gives a toy.
#pragma once

#include <functional>
#include <memory>

#include "base/result.h"
#include "exec/executor.h"
#include "fleet/messages.h"

namespace chorus {

using ExecutorFactory =
    std::function<Result<std::unique_ptr<Executor>>(const EngineStart& start, const LoadedWeights& weights)>;

// Speaks the protocol of messages.h on `socket_fd` until SHUTDOWN, the fleet's end, or an error; returns the exit
// status: 0 told to end or the fleet is gone, 1 failed while running, 2 the configuration cannot work (a restart would
// not help).
//
// Between steps it takes what has come and never waits while there is work; idle, it waits for the socket. A token and
// the finish it causes are one event. A report of its load goes out with a change, at most every 20 ms.
int engine_process_main(int socket_fd, const ExecutorFactory& factory);

// "amx-bf16/bfloat16": one string for all replicas of a fleet, or their outputs could differ.
std::string numerics_profile(const LoadedWeights& weights);

}  // namespace chorus
