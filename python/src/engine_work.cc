#include "engine_work.h"

#include <poll.h>

namespace chorus::python {

Result<void> EngineWork::idle(TextEngine& engine, std::vector<TextDelta>* deltas) {
  const FleetWait wait = engine.wait();
  pollfd items[] = {{wakeup_.fd(), POLLIN, 0}, {wait.descriptor, POLLIN, 0}};
  ::poll(items, std::size(items), wait.timeout_ms);
  wakeup_.quiet();
  return engine.poll(0, deltas);
}

}  // namespace chorus::python
