// What goes wrong inside a template, and the one account of what a render may use. TemplateError is thrown and caught
// inside this room only: Template::parse and Template::render turn it into an Error.
//
// Memory is charged where it is taken: strings, lists, dicts, objects and scopes of a render get theirs from Charged,
// so nothing that a template makes, not even a temporary, is left out. Work is charged by what an operation reads; what
// it writes is charged with its memory.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <new>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "jinja/chat_template.h"

namespace chorus::jinja {

struct TemplateError {
  ErrorCode code = ErrorCode::invalid_argument;
  std::string kind;  // the class jinja2 or Python would raise: "TypeError"; empty for raise_exception
  std::string message;
  int line = 0;  // 0: not known yet
};

template <typename... Args>
[[noreturn]] void raise(const char* kind, fmt::format_string<Args...> format, Args&&... args) {
  throw TemplateError{ErrorCode::invalid_argument, kind, fmt::format(format, std::forward<Args>(args)...), 0};
}

template <typename... Args>
[[noreturn]] void raise_limit(fmt::format_string<Args...> format, Args&&... args) {
  throw TemplateError{ErrorCode::resource_exhausted, "limit", fmt::format(format, std::forward<Args>(args)...), 0};
}

// Counts down what TemplateLimits allows to one render.
class Budget {
 public:
  explicit Budget(const TemplateLimits& limits) : limits_(limits), steps_left_(limits.steps_max) {}
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

  void step(std::uint64_t steps = 1) {
    if (steps > steps_left_) {
      raise_limit("more than {} steps: the template does not end or is too large", limits_.steps_max);
    }
    steps_left_ -= steps;
  }
  // What an operation reads. A step is about a tenth of a microsecond, and these are the slowest of their kind.
  void read_bytes(std::uint64_t bytes) { step(bytes / 256); }     // copied or compared as a whole
  void search_bytes(std::uint64_t bytes) { step(bytes / 32); }    // looked through for a text
  void read_characters(std::uint64_t bytes) { step(bytes / 8); }  // decoded one by one
  void read_items(std::uint64_t items) { step(items / 4); }       // of a list or dict
  void compare_names(std::uint64_t count) { step(count / 16); }   // of variables, arguments and keys

  // Memory in use, by the allocator below. Throws before it is taken.
  void hold(std::uint64_t bytes) {
    if (bytes > limits_.memory_bytes_max - held_bytes_) {
      raise_limit("{} bytes beside {} in use are more than a template may hold (limit {} bytes)", bytes, held_bytes_,
                  limits_.memory_bytes_max);
    }
    step(1 + bytes / 256);
    held_bytes_ += bytes;
  }
  void release(std::uint64_t bytes) noexcept { held_bytes_ -= bytes; }
  std::uint64_t held_bytes() const { return held_bytes_; }
  std::uint64_t steps_left() const { return steps_left_; }

  // Memory that no allocator of ours hands out, as long as this lives.
  class Held {
   public:
    Held(Budget& budget, std::uint64_t bytes) : budget_(budget), bytes_(bytes) { budget_.hold(bytes); }
    ~Held() { budget_.release(bytes_); }
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;

   private:
    Budget& budget_;
    std::uint64_t bytes_;
  };

  // One level of nesting, as long as it lives.
  class Level {
   public:
    explicit Level(Budget& budget) : budget_(budget) {
      if (budget_.depth_ >= budget_.limits_.depth_max) {
        raise_limit("nested deeper than {} levels", budget_.limits_.depth_max);
      }
      ++budget_.depth_;
    }
    ~Level() { --budget_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Budget& budget_;
  };

 private:
  TemplateLimits limits_;
  std::uint64_t steps_left_;
  std::uint64_t held_bytes_ = 0;
  int depth_ = 0;
};

// The allocator of a render: it has no default, so whatever is made must say whose budget it comes from. The parser's
// constants have none (nullptr): they are shared by renders, and the size of the template bounds them.
template <typename T>
class Charged {
 public:
  using value_type = T;
  using propagate_on_container_move_assignment = std::true_type;
  using propagate_on_container_swap = std::true_type;

  Charged(Budget& budget) : budget_(&budget) {}  // NOLINT: implicit, so that a budget may stand for its allocator
  explicit Charged(Budget* budget) : budget_(budget) {}
  template <typename U>
  Charged(const Charged<U>& other) : budget_(other.budget()) {}  // NOLINT: what allocators must have

  T* allocate(std::size_t count) {
    std::uint64_t bytes = 0;
    if (__builtin_mul_overflow(count, sizeof(T), &bytes) || bytes > UINT64_MAX / 2) throw std::bad_alloc();
    if (budget_ == nullptr) return static_cast<T*>(::operator new(bytes));
    budget_->hold(bytes + block_bytes);
    try {
      return static_cast<T*>(::operator new(bytes));
    } catch (...) {
      budget_->release(bytes + block_bytes);
      throw;
    }
  }
  void deallocate(T* block, std::size_t count) noexcept {
    if (budget_ != nullptr) budget_->release(count * sizeof(T) + block_bytes);
    ::operator delete(block);
  }
  Budget* budget() const { return budget_; }
  friend bool operator==(const Charged& a, const Charged& b) { return a.budget_ == b.budget_; }

 private:
  static constexpr std::uint64_t block_bytes = 16;  // malloc's own part of a block
  Budget* budget_;
};

using String = std::basic_string<char, std::char_traits<char>, Charged<char>>;
template <typename T>
using Vector = std::vector<T, Charged<T>>;

}  // namespace chorus::jinja
