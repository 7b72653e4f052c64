// Deliberate bugs: a switch each inside the Dispatcher, the Ledger, the LoadView, the Coordinator. The simulator must
// find every one of them (sim/planted_fault_test.cc); a simulator that has never failed proves nothing. `none`
// everywhere else.
#pragma once

#include <cstdint>
#include <utility>

namespace chorus {

enum class PlantedFault : std::uint8_t {
  none,
  forget_last_token,      // Ledger: goes on elsewhere without the last token, and takes it again
  ignore_epochs,          // Ledger: listens to whoever speaks of a request
  lose_finish,            // Dispatcher: now and then the end of a choice is not told
  lose_priority,          // Dispatcher: a request that comes back from a dead replica has lost its place in the order
  ignore_window,          // Dispatcher: a replica has always room
  unbounded_waiting,      // Dispatcher: takes requests without end
  reuse_request_numbers,  // Dispatcher: numbers begin anew
  lose_moved_request,     // Dispatcher: a request that leaves a draining replica does not wait for another one
  return_at_once,         // Dispatcher: what left a replica may come back before its old tokens are through
  blame_in_company,       // Dispatcher: a suspect is not run alone
  count_load_twice,       // LoadView: what a report already holds is added on top for ever
  forget_waves,           // Coordinator: work that came between two waves begins none
  keep_peers,             // Coordinator: one of a world is given up, the others wait for it
  keep_world,             // Coordinator: one of a world has died, the others are left in it
  await_departed,         // Coordinator: a front end that has gone is waited for
  take_any_answer,        // Coordinator: an answer to an earlier draining counts for the present one
};

inline constexpr std::pair<const char*, PlantedFault> planted_faults[] = {
    {"none", PlantedFault::none},
    {"forget-last-token", PlantedFault::forget_last_token},
    {"ignore-epochs", PlantedFault::ignore_epochs},
    {"lose-finish", PlantedFault::lose_finish},
    {"lose-priority", PlantedFault::lose_priority},
    {"ignore-window", PlantedFault::ignore_window},
    {"unbounded-waiting", PlantedFault::unbounded_waiting},
    {"reuse-request-numbers", PlantedFault::reuse_request_numbers},
    {"lose-moved-request", PlantedFault::lose_moved_request},
    {"return-at-once", PlantedFault::return_at_once},
    {"blame-in-company", PlantedFault::blame_in_company},
    {"count-load-twice", PlantedFault::count_load_twice},
    {"forget-waves", PlantedFault::forget_waves},
    {"keep-peers", PlantedFault::keep_peers},
    {"keep-world", PlantedFault::keep_world},
    {"await-departed", PlantedFault::await_departed},
    {"take-any-answer", PlantedFault::take_any_answer},
};

}  // namespace chorus
