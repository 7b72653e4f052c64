// The load balancers there are: a row for each. `name` is the option's value, and make_NAME() of
// cluster/balance/NAME.cc makes it.
#pragma once

// round_robin: replicas in turn, whatever their load. least_loaded: the one with the fewest sequences in flight.
// power_of_two: of two drawn at random the one with fewer in flight. prefix_affinity: the one that has computed most of
// the prompt's beginning before, unless it is much busier than another.
#define CHORUS_LOAD_BALANCERS(row) row(round_robin) row(least_loaded) row(power_of_two) row(prefix_affinity)

// Each as a word of a text: " round_robin" " least_loaded" ..
#define CHORUS_WORD(name) " " #name
