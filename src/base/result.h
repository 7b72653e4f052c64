// Expected errors are values. A function that may fail for a reason outside this program (a file, a message, a user's
// option) returns Result<T>; a broken invariant is CHECK's (base/check.h). No exception crosses a room.
#pragma once

#include <fmt/format.h>

#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "base/fields.h"

namespace chorus {

// The short list. A command's exit status and an HTTP status follow from it.
enum class ErrorCode {
  invalid_argument,    // the caller's input or configuration is wrong: exit 2
  not_found,           // a file, model or name that is not there: exit 2
  resource_exhausted,  // memory, disk, queue bound: exit 1
  deadline_exceeded,   // a wait ran out: exit 1
  unavailable,         // a process or peer is gone: exit 1
  cancelled,           // the caller stopped it: exit 130
  internal,            // what the system refused unexpectedly (errno and call in the message): exit 1
};

// `message` says what happened, where (file, row, tensor, option), the limit that was passed, and what to do next.
struct Error {
  ErrorCode code = ErrorCode::internal;
  std::string message;
};

const char* name_of(ErrorCode code);
constexpr auto enumeration_of(ErrorCode) {
  return Enumeration{"an error code", ErrorCode::internal};
}

// fail(ErrorCode::not_found, "no config.json in {}: give a model directory", path)
template <typename... Args>
[[nodiscard]] Error fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return Error{code, fmt::format(format, std::forward<Args>(args)...)};
}

// The same error, with the place in front: "config.json: " + message.
[[nodiscard]] inline Error with_context(Error error, const std::string& where) {
  error.message.insert(0, where + ": ");
  return error;
}

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}      // NOLINT: a value converts, so that `return value;` reads plainly
  Result(Error error) : state_(std::move(error)) {}  // NOLINT
  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  // Calling value() on an error or error() on a value terminates (std::get throws through noexcept).
  T& value() & noexcept { return std::get<0>(state_); }
  const T& value() const& noexcept { return std::get<0>(state_); }
  T&& value() && noexcept { return std::get<0>(std::move(state_)); }
  T& operator*() & noexcept { return value(); }
  const T& operator*() const& noexcept { return value(); }
  T* operator->() noexcept { return &value(); }
  const T* operator->() const noexcept { return &value(); }
  const Error& error() const noexcept { return std::get<1>(state_); }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT
  bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Error& error() const noexcept { return error_.value(); }

 private:
  std::optional<Error> error_;
};

// CHORUS_TRY(auto file, open_file(path));   returns the error from the enclosing function.
// NOLINTBEGIN(bugprone-macro-parentheses): a declaration cannot stand in parentheses
#define CHORUS_TRY_CAT2(a, b) a##b
#define CHORUS_TRY_CAT(a, b) CHORUS_TRY_CAT2(a, b)
#define CHORUS_TRY(declaration, expression) \
  CHORUS_TRY_IMPL(declaration, expression, CHORUS_TRY_CAT(try_result_, __LINE__))
#define CHORUS_TRY_IMPL(declaration, expression, name) \
  auto name = (expression);                            \
  if (!name.ok()) return name.error();                 \
  declaration = std::move(name).value()
// NOLINTEND(bugprone-macro-parentheses)
// CHORUS_TRY_VOID(write(...));
#define CHORUS_TRY_VOID(expression) \
  if (auto try_void_result = (expression); !try_void_result.ok()) return try_void_result.error()

}  // namespace chorus
