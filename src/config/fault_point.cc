#include "config/fault_point.h"

#include <fmt/ranges.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>

namespace chorus {
namespace {

constexpr std::array<const char*, 8> names = {"configured",    "joined",      "made",      "idle",
                                              "plan-received", "layers-done", "step-done", "told-to-end"};

}  // namespace

std::span<const char* const> fault_point_names() {
  return names;
}

Result<FaultPoint> FaultPoint::parse(const std::string& text) {
  FaultPoint point;
  if (text.empty()) return point;
  const Error error =
      fail(ErrorCode::invalid_argument,
           "--fault-point is \"{}\"; accepted: WORKER@NAME or WORKER@NAME:N, such as \"dp=0 pp=0 tp=1@idle:3\", with "
           "NAME one of {}",
           text.substr(0, 100), fmt::join(names, ", "));
  const auto at = text.find('@');
  if (at == std::string::npos || at == 0) return error;
  point.worker_ = text.substr(0, at);
  const auto colon = text.find(':', at);
  point.name_ = text.substr(at + 1, colon == std::string::npos ? colon : colon - at - 1);
  point.left_ = 1;
  if (colon != std::string::npos) {
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data() + colon + 1, end, point.left_);
    if (parsed.ec != std::errc() || parsed.ptr != end || point.left_ < 1) return error;
  }
  const bool known = std::ranges::find(names, std::string_view(point.name_)) != names.end();
  if (!known) return error;
  return point;
}

FaultPoint FaultPoint::of(const std::string& worker, bool first_incarnation) const {
  return first_incarnation && worker == worker_ ? *this : FaultPoint();
}

void FaultPoint::pass(const char* name) {
  if (left_ == 0 || name_ != name || --left_ > 0) return;
  ::kill(::getpid(), SIGKILL);
}

}  // namespace chorus
