// The metrics as Prometheus reads them: its text format 0.0.4.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "server/metrics/metric_store.h"

namespace chorus {

inline constexpr const char* metrics_content_type = "text/plain; version=0.0.4; charset=utf-8";

// What stays as it is while the server runs.
struct MetricTextConfig {
  std::string model_name;
  std::vector<std::pair<std::string, std::string>> cache_config;  // labels of vllm:cache_config_info
};

std::string metrics_text(const MetricStore& store, const MetricTextConfig& config);

}  // namespace chorus
