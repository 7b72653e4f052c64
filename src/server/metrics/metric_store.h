// The numbers behind /metrics, in memory that the processes of a server share: a slot for the parent and one for each
// front end. Each writes its own slot alone, without a lock; whoever is asked for the metrics adds all of them up, so
// that the answer is the whole server's, whichever front end gives it. A front end that is started again goes on in the
// slot of the one before it: counters never fall.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "base/result.h"
#include "net/unique_fd.h"
#include "server/metrics/metric_layout.h"

namespace chorus {

using MetricCell = std::atomic<std::uint64_t>;  // a counter's number, or the bits of a double

// One process's place to write. Single writer.
class MetricSlot {
 public:
  MetricSlot() = default;  // nobody counts
  MetricSlot(std::shared_ptr<const MetricLayout> layout, std::shared_ptr<MetricCell[]> memory, int slot);

  void add(Metric counter, std::uint64_t number = 1, MetricSeries series = {}) const;
  void set_counter(Metric counter, std::uint64_t total, MetricSeries series = {}) const;  // counted elsewhere
  void set(Metric gauge, double value, MetricSeries series = {}) const;
  void observe(Metric histogram, double value, MetricSeries series = {}) const;
  // Counted elsewhere: of each bucket (not of those below it), and the sum of all values.
  void set_histogram(Metric histogram, std::span<const std::uint64_t> counts, double sum,
                     MetricSeries series = {}) const;
  void clear_gauges() const;  // of a process that is no more

 private:
  MetricCell* cell(Metric metric, MetricSeries series) const;

  std::shared_ptr<const MetricLayout> layout_;
  std::shared_ptr<MetricCell[]> cells_;  // of this slot; nullptr: nobody counts
};

class MetricStore {
 public:
  static Result<MetricStore> create(const MetricShape& shape);
  // From another process, which has the same shape. Refuses what is not such a memory.
  static Result<MetricStore> open(UniqueFd memory, const MetricShape& shape);

  int fd() const { return fd_.get(); }
  MetricSlot parent() const { return {layout_, memory_, 0}; }
  MetricSlot front_end(int index) const { return {layout_, memory_, index + 1}; }
  const MetricLayout& layout() const { return *layout_; }

  // Over all slots.
  std::uint64_t counter(std::size_t cell) const;
  double value(std::size_t cell) const;

 private:
  static Result<MetricStore> map(UniqueFd memory, std::shared_ptr<const MetricLayout> layout);

  UniqueFd fd_;
  std::shared_ptr<const MetricLayout> layout_;
  std::shared_ptr<MetricCell[]> memory_;
};

}  // namespace chorus
