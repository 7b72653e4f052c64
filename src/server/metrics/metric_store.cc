#include "server/metrics/metric_store.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace chorus {
namespace {

constexpr int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
static_assert(MetricCell::is_always_lock_free);

std::size_t slots_of(const MetricShape& shape) {
  return static_cast<std::size_t>(shape.front_ends) + 1;
}
std::size_t bytes_of(const MetricLayout& layout) {
  return slots_of(layout.shape()) * layout.cells() * sizeof(MetricCell);
}

void put(MetricCell& cell, std::uint64_t value) {
  cell.store(value, std::memory_order_relaxed);
}
std::uint64_t get(const MetricCell& cell) {
  return cell.load(std::memory_order_relaxed);
}
void put_double(MetricCell& cell, double value) {
  put(cell, std::bit_cast<std::uint64_t>(value));
}
double get_double(const MetricCell& cell) {
  return std::bit_cast<double>(get(cell));
}

}  // namespace

MetricSlot::MetricSlot(std::shared_ptr<const MetricLayout> layout, std::shared_ptr<MetricCell[]> memory, int slot)
    : layout_(std::move(layout)) {
  CHECK(slot >= 0 && static_cast<std::size_t>(slot) < slots_of(layout_->shape()), "slot {}", slot);
  MetricCell* const first = memory.get() + static_cast<std::size_t>(slot) * layout_->cells();
  cells_ = std::shared_ptr<MetricCell[]>(std::move(memory), first);
}

MetricCell* MetricSlot::cell(Metric metric, MetricSeries series) const {
  return cells_ == nullptr ? nullptr : cells_.get() + layout_->at(metric, series);
}

void MetricSlot::add(Metric counter, std::uint64_t number, MetricSeries series) const {
  if (MetricCell* const at = cell(counter, series)) put(*at, get(*at) + number);
}

void MetricSlot::set_counter(Metric counter, std::uint64_t total, MetricSeries series) const {
  if (MetricCell* const at = cell(counter, series)) put(*at, total);
}

void MetricSlot::set(Metric gauge, double value, MetricSeries series) const {
  if (MetricCell* const at = cell(gauge, series)) put_double(*at, value);
}

void MetricSlot::observe(Metric histogram, double value, MetricSeries series) const {
  MetricCell* const at = cell(histogram, series);
  if (at == nullptr) return;
  const auto bounds = layout_->bounds(row_of(histogram).buckets);
  MetricCell& bucket = at[std::ranges::lower_bound(bounds, value) - bounds.begin()];
  put(bucket, get(bucket) + 1);
  MetricCell& sum = at[bounds.size() + 1];
  put_double(sum, get_double(sum) + value);
}

void MetricSlot::set_histogram(Metric histogram, std::span<const std::uint64_t> counts, double sum,
                               MetricSeries series) const {
  MetricCell* const at = cell(histogram, series);
  if (at == nullptr) return;
  const std::size_t buckets = layout_->bounds(row_of(histogram).buckets).size() + 1;
  CHECK(counts.size() == buckets, "{} counts for {} buckets", counts.size(), buckets);
  for (std::size_t i = 0; i < buckets; ++i) put(at[i], counts[i]);
  put_double(at[buckets], sum);
}

void MetricSlot::clear_gauges() const {
  if (cells_ == nullptr) return;
  for (const MetricRow& row : metric_rows()) {
    if (row.kind != MetricKind::gauge) continue;
    for (int engine = 0; engine < layout_->engines(row); ++engine) {
      for (std::size_t value = 0; value < std::max<std::size_t>(row.values.size(), 1); ++value) {
        set(row.metric, 0, {engine, value});
      }
    }
  }
}

Result<MetricStore> MetricStore::create(const MetricShape& shape) {
  const auto layout = std::make_shared<const MetricLayout>(shape);
  UniqueFd fd(::memfd_create("chorus-metrics", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return fail(ErrorCode::internal, "memfd_create: {}", std::strerror(errno));
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes_of(*layout))) != 0 || ::fcntl(fd.get(), F_ADD_SEALS, seals) != 0) {
    return fail(ErrorCode::internal, "the memory of the metrics: {}", std::strerror(errno));
  }
  return map(std::move(fd), layout);
}

Result<MetricStore> MetricStore::open(UniqueFd memory, const MetricShape& shape) {
  const auto layout = std::make_shared<const MetricLayout>(shape);
  struct stat status {};
  if (::fstat(memory.get(), &status) != 0 || status.st_size != static_cast<off_t>(bytes_of(*layout))) {
    return fail(ErrorCode::invalid_argument, "the memory of the metrics has {} bytes, not {}", status.st_size,
                bytes_of(*layout));
  }
  return map(std::move(memory), layout);
}

Result<MetricStore> MetricStore::map(UniqueFd memory, std::shared_ptr<const MetricLayout> layout) {
  const std::size_t bytes = bytes_of(*layout);
  void* const mapped = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
  if (mapped == MAP_FAILED) {
    return fail(ErrorCode::internal, "mapping the memory of the metrics: {}", std::strerror(errno));
  }
  MetricStore store;
  store.fd_ = std::move(memory);
  store.layout_ = std::move(layout);
  store.memory_ = std::shared_ptr<MetricCell[]>(static_cast<MetricCell*>(mapped),
                                                [bytes](MetricCell* cells) { ::munmap(cells, bytes); });
  return store;
}

std::uint64_t MetricStore::counter(std::size_t cell) const {
  std::uint64_t sum = 0;
  for (std::size_t slot = 0; slot < slots_of(layout_->shape()); ++slot) {
    sum += get(memory_[static_cast<std::ptrdiff_t>(slot * layout_->cells() + cell)]);
  }
  return sum;
}

double MetricStore::value(std::size_t cell) const {
  double sum = 0;
  for (std::size_t slot = 0; slot < slots_of(layout_->shape()); ++slot) {
    sum += get_double(memory_[static_cast<std::ptrdiff_t>(slot * layout_->cells() + cell)]);
  }
  return sum;
}

}  // namespace chorus
