// What goes wrong inside a template, and the fuel that bounds what a template may use. TemplateError is thrown and
// caught inside this room only: Template::parse and Template::render turn it into an Error.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <utility>

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

// Counts down what TemplateLimits allows. Memory is charged as steps too: a template that builds large values runs out
// of steps before it runs out of memory.
class Budget {
 public:
  explicit Budget(const TemplateLimits& limits) : limits_(limits), steps_left_(limits.steps_max) {}

  void step(std::uint64_t steps = 1) {
    if (steps > steps_left_) {
      throw TemplateError{
          ErrorCode::resource_exhausted, "limit",
          fmt::format("more than {} steps: the template does not end or is too large", limits_.steps_max), 0};
    }
    steps_left_ -= steps;
  }
  // Before making a string of `bytes` or a list of `items`.
  void string_of(std::uint64_t bytes) {
    if (bytes > limits_.output_bytes_max) too_large(bytes, "bytes");
    step(bytes / bytes_per_step);
  }
  void list_of(std::uint64_t items) {
    if (items > limits_.output_bytes_max / 16) too_large(items, "items");
    step(items / 4);
  }
  void output(std::uint64_t bytes_total) const {
    if (bytes_total > limits_.output_bytes_max) too_large(bytes_total, "bytes of output");
  }

  // One level of nesting, as long as it lives.
  class Level {
   public:
    explicit Level(Budget* budget) : budget_(budget) {
      if (++budget_->depth_ > budget_->limits_.depth_max) {
        --budget_->depth_;
        throw TemplateError{ErrorCode::resource_exhausted, "limit",
                            fmt::format("nested deeper than {} levels", budget_->limits_.depth_max), 0};
      }
    }
    ~Level() { --budget_->depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Budget* budget_;
  };

 private:
  static constexpr std::uint64_t bytes_per_step = 256;
  [[noreturn]] void too_large(std::uint64_t size, const char* what) const {
    throw TemplateError{
        ErrorCode::resource_exhausted, "limit",
        fmt::format("{} {} are more than a template may make (limit {} bytes)", size, what, limits_.output_bytes_max),
        0};
  }
  TemplateLimits limits_;
  std::uint64_t steps_left_;
  int depth_ = 0;
};

}  // namespace chorus::jinja
