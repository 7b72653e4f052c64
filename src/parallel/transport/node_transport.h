// The Transport of a world that spans nodes and has several ranks on some: shared memory inside a node, TCP between
// nodes. Both are driven by the rank's one thread.
//
// Why nothing waits in a circle. transport.h promises that all pieces of one exchange move at once. Here each kind
// moves as far as it goes, in turn, and a rank rests only when neither could; it never finishes one kind before it
// begins the other. (That would do for collectives, whose ranks all take the same steps. It would not where ranks 0 and
// 1 are on two nodes and 0 sends to 1, then to 1's neighbour 2, while 1 receives from 0 and sends to 2 in one exchange:
// 1 would wait for 2, 2 for 0, and 0 for 1.) So a piece moves whenever both its ends are in their exchange, as with one
// transport, and whatever does not block over one does not block here.
//
// How a rank rests. While one kind has pieces left it rests as that one does, and is woken by it. While both have, it
// sleeps in shared memory, which is over soon as a rule, and tries TCP again every millisecond: the kernel goes on
// sending and receiving in the meantime.
//
// Failure. Whatever breaks one breaks the other, with its reason. All ranks have TCP connections with all, so each
// hears of every death; a rank that rests looks after both kinds at least every 100 ms.
#pragma once

#include <memory>
#include <vector>

#include "parallel/transport/transport.h"

namespace chorus {

// `tcp`: between all ranks. `shared`: between those of this node, in the order of `ranks_of_this_node`, which ascends;
// join it with these as names. May be null where this rank is alone on its node: the result is `tcp` itself.
std::unique_ptr<Transport> make_node_transport(std::unique_ptr<Transport> tcp, std::unique_ptr<Transport> shared,
                                               const std::vector<int>& ranks_of_this_node);

}  // namespace chorus
