// What a front end does otherwise when it is told so.
#pragma once

#include "server/admission.h"

namespace chorus {

struct FrontEndOptions {
  bool open_metrics = false;           // /metrics needs no key
  bool prompt_tokens_details = false;  // in `usage`: how many tokens the prefix cache had
  AdmissionLimits admission;
  static constexpr auto fields(auto& self, auto&& visit) {
    return visit(self.open_metrics, self.prompt_tokens_details, self.admission);
  }
};

}  // namespace chorus
