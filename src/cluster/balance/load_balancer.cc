#include "cluster/balance/load_balancer.h"

#include "base/check.h"

namespace chorus {

std::unique_ptr<LoadBalancer> make_load_balancer(LoadBalancerName name) {
  switch (name) {
#define CHORUS_CASE(name)      \
  case LoadBalancerName::name: \
    return make_##name();
    CHORUS_LOAD_BALANCERS(CHORUS_CASE)
#undef CHORUS_CASE
  }
  CHECK(false, "load balancer {}", static_cast<int>(name));
}

}  // namespace chorus
