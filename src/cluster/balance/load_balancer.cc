#include "cluster/balance/load_balancer.h"

#include "base/check.h"

namespace chorus {

std::unique_ptr<LoadBalancer> make_load_balancer(LoadBalancerName name) {
  switch (name) {
    case LoadBalancerName::round_robin:
      return make_round_robin();
    case LoadBalancerName::least_loaded:
      return make_least_loaded();
  }
  CHECK(false, "load balancer {}", static_cast<int>(name));
}

}  // namespace chorus
