#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <vector>

#include "parallel/store/store.h"
#include "parallel/store/store_check.h"

namespace chorus {
namespace {

class MemoryStore final : public Store {
 public:
  Result<void> set(const std::string& key, std::string_view value, int) override {
    CHORUS_TRY_VOID(check_store_value(key, value));
    const std::lock_guard lock(mutex_);
    values_[key] = value;
    changed_.notify_all();
    return {};
  }

  Result<std::string> get(const std::string& key, int timeout_ms) override {
    CHORUS_TRY_VOID(check_store_key(key));
    std::unique_lock lock(mutex_);
    if (!wait_locked(&lock, {&key, 1}, timeout_ms)) return store_deadline_error({&key, 1}, timeout_ms);
    return values_[key];
  }

  Result<std::int64_t> add(const std::string& key, std::int64_t delta, int) override {
    CHORUS_TRY_VOID(check_store_key(key));
    const std::lock_guard lock(mutex_);
    const auto found = values_.find(key);
    CHORUS_TRY(const std::int64_t sum, add_to_counter(key, found == values_.end() ? "" : found->second, delta));
    values_[key] = std::to_string(sum);
    changed_.notify_all();
    return sum;
  }

  Result<std::string> compare_set(const std::string& key, std::string_view expected, std::string_view desired,
                                  int) override {
    CHORUS_TRY_VOID(check_store_value(key, desired));
    const std::lock_guard lock(mutex_);
    const auto found = values_.find(key);
    if (found == values_.end() && !expected.empty()) return std::string(expected);
    if (found != values_.end() && found->second != expected) return found->second;
    values_[key] = desired;
    changed_.notify_all();
    return std::string(desired);
  }

  Result<bool> delete_key(const std::string& key, int) override {
    CHORUS_TRY_VOID(check_store_key(key));
    const std::lock_guard lock(mutex_);
    return values_.erase(key) > 0;
  }

  Result<bool> check(std::span<const std::string> keys, int) override {
    CHORUS_TRY_VOID(check_store_keys(keys));
    const std::lock_guard lock(mutex_);
    return all_there(keys);
  }

  Result<void> wait(std::span<const std::string> keys, int timeout_ms) override {
    CHORUS_TRY_VOID(check_store_keys(keys));
    std::unique_lock lock(mutex_);
    if (!wait_locked(&lock, keys, timeout_ms)) return store_deadline_error(keys, timeout_ms);
    return {};
  }

 private:
  bool all_there(std::span<const std::string> keys) const {
    for (const std::string& key : keys) {
      if (!values_.contains(key)) return false;
    }
    return true;
  }

  bool wait_locked(std::unique_lock<std::mutex>* lock, std::span<const std::string> keys, int timeout_ms) {
    return changed_.wait_for(*lock, std::chrono::milliseconds(timeout_ms), [&] { return all_there(keys); });
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::string> values_;
};

class PrefixStore final : public Store {
 public:
  PrefixStore(std::shared_ptr<Store> store, const std::string& prefix)
      : store_(std::move(store)), prefix_(prefix + "/") {}

  Result<void> set(const std::string& key, std::string_view value, int timeout_ms) override {
    return store_->set(prefix_ + key, value, timeout_ms);
  }
  Result<std::string> get(const std::string& key, int timeout_ms) override {
    return store_->get(prefix_ + key, timeout_ms);
  }
  Result<std::int64_t> add(const std::string& key, std::int64_t delta, int timeout_ms) override {
    return store_->add(prefix_ + key, delta, timeout_ms);
  }
  Result<std::string> compare_set(const std::string& key, std::string_view expected, std::string_view desired,
                                  int timeout_ms) override {
    return store_->compare_set(prefix_ + key, expected, desired, timeout_ms);
  }
  Result<bool> delete_key(const std::string& key, int timeout_ms) override {
    return store_->delete_key(prefix_ + key, timeout_ms);
  }
  Result<bool> check(std::span<const std::string> keys, int timeout_ms) override {
    return store_->check(prefixed(keys), timeout_ms);
  }
  Result<void> wait(std::span<const std::string> keys, int timeout_ms) override {
    return store_->wait(prefixed(keys), timeout_ms);
  }
  std::string local_address() const override { return store_->local_address(); }

 private:
  std::vector<std::string> prefixed(std::span<const std::string> keys) const {
    std::vector<std::string> result;
    result.reserve(keys.size());
    for (const std::string& key : keys) result.push_back(prefix_ + key);
    return result;
  }

  std::shared_ptr<Store> store_;
  std::string prefix_;
};

}  // namespace

std::shared_ptr<Store> make_memory_store() {
  return std::make_shared<MemoryStore>();
}

std::unique_ptr<Store> make_prefix_store(std::shared_ptr<Store> store, const std::string& prefix) {
  return std::make_unique<PrefixStore>(std::move(store), prefix);
}

}  // namespace chorus
