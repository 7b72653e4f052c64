#include "server/metrics/metric_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace chorus {
namespace {

// As Python's client writes them: dashboards compare bounds as text.
std::string number(double value) {
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".en") == text.npos) text += ".0";
  return text;
}

std::string escaped(std::string_view value) {
  std::string text;
  for (const char c : value) {
    if (c == '\\' || c == '"') text += '\\';
    if (c == '\n') {
      text += "\\n";
    } else {
      text += c;
    }
  }
  return text;
}

class TextWriter {
 public:
  TextWriter(const MetricStore& store, const MetricTextConfig& config)
      : store_(store), layout_(store.layout()), model_(fmt::format("model_name=\"{}\"", escaped(config.model_name))) {}

  void metric(const MetricRow& row) {
    static constexpr const char* kinds[] = {"counter", "gauge", "histogram"};
    head(row.name, row.help, kinds[static_cast<std::size_t>(row.kind)]);
    for (int engine = 0; engine < layout_.engines(row); ++engine) {
      if (row.labels == MetricLabels::engine && !is_there(engine)) continue;
      for (std::size_t value = 0; value < std::max<std::size_t>(row.values.size(), 1); ++value) {
        series(row, {engine, value});
      }
    }
  }

  void cache_config(const MetricTextConfig& config) {
    head("vllm:cache_config_info", "Information of the KV-cache configuration.", "gauge");
    for (int engine = 0; engine < layout_.shape().engines_max; ++engine) {
      if (!is_there(engine)) continue;
      put("vllm:cache_config_info{{engine=\"{}\"", engine);
      for (const auto& [name, value] : config.cache_config) put(",{}=\"{}\"", name, escaped(value));
      put(",num_gpu_blocks=\"{:.0f}\"}} 1\n", store_.value(layout_.at(Metric::kv_blocks, {engine, 0})));
    }
  }

  std::string take() { return std::move(text_); }

 private:
  template <typename... T>
  void put(fmt::format_string<T...> format, T&&... values) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<T>(values)...);
  }

  // One that was added is when it has a state; one that was removed is no more.
  bool is_there(int engine) const {
    const std::size_t states = layout_.at(Metric::replica_state, {engine, 0});
    if (store_.value(states + metric_value::removed) > 0) return false;
    bool has_state = engine >= layout_.shape().first_engine && engine < layout_.shape().engines;
    for (std::size_t state = 0; state < metric_value::removed; ++state) {
      has_state = has_state || store_.value(states + state) > 0;
    }
    return has_state;
  }

  void head(const char* name, const char* help, const char* kind) {
    put("# HELP {0} {1}\n# TYPE {0} {2}\n", name, help, kind);
  }

  std::string labels_of(const MetricRow& row, MetricSeries series) const {
    std::string labels;
    const auto add = [&labels](std::string_view label) {
      if (!labels.empty()) labels += ',';
      labels += label;
    };
    if (row.labels == MetricLabels::engine) add(fmt::format("engine=\"{}\"", series.engine));
    if (row.labels != MetricLabels::none) add(model_);
    if (!row.values.empty()) add(row.values[series.value]);
    return labels;
  }

  void series(const MetricRow& row, MetricSeries series) {
    const std::size_t cell = layout_.at(row.metric, series);
    const std::string labels = labels_of(row, series);
    switch (row.kind) {
      case MetricKind::counter:
        return put("{}{{{}}} {}\n", row.name, labels, store_.counter(cell));
      case MetricKind::gauge:
        return put("{}{{{}}} {}\n", row.name, labels, store_.value(cell));
      case MetricKind::histogram:
        return histogram(row, labels, cell);
    }
  }

  void histogram(const MetricRow& row, const std::string& labels, std::size_t cell) {
    const auto bounds = layout_.bounds(row.buckets);
    std::uint64_t count = 0;
    for (std::size_t i = 0; i <= bounds.size(); ++i) {
      count += store_.counter(cell + i);
      put("{}_bucket{{{},le=\"{}\"}} {}\n", row.name, labels, i < bounds.size() ? number(bounds[i]) : "+Inf", count);
    }
    put("{}_sum{{{}}} {}\n", row.name, labels, store_.value(cell + bounds.size() + 1));
    put("{}_count{{{}}} {}\n", row.name, labels, count);
  }

  const MetricStore& store_;
  const MetricLayout& layout_;
  std::string model_;
  std::string text_;
};

}  // namespace

std::string metrics_text(const MetricStore& store, const MetricTextConfig& config) {
  TextWriter writer(store, config);
  for (const MetricRow& row : metric_rows()) writer.metric(row);
  writer.cache_config(config);
  return writer.take();
}

}  // namespace chorus
