// What a front end hears of one choice of one of its requests, from the Dispatcher up to the text engine: one type, so
// that a list of them is handed on as it is.
#pragma once

#include "request/request.h"

namespace chorus {

struct FleetEvent {
  TokenEvent event;
  int dp_rank = -1;  // who computed it, or died last with it
};

}  // namespace chorus
