// One list of a struct's members, for everybody who walks over them: the wire (net/archive.h), the table of options,
// the cluster's fingerprint (config/). The struct holds it:
//   struct Point {
//     int x = 0, y = 0;
//     static constexpr auto fields(auto& self, auto&& visit) { return visit(self.x, self.y); }
//   };
// A member that the list lacks does not compile: its length is checked against the number of members, which is found
// without the list.
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

namespace chorus {

// Converts to whatever a member is, in expressions that are not evaluated.
struct AnyMember {
  template <typename T>
  operator T() const;  // NOLINT: implicit, and never defined
};

template <typename T, std::size_t... i>
constexpr bool takes_members(std::index_sequence<i...> /*members*/) {
  return requires {
    T{(static_cast<void>(i), AnyMember{})...};
  };
}

// Members of an aggregate without arrays and base classes: the most initializers that its braces take.
template <typename T, std::size_t count = 0>
constexpr std::size_t member_count() {
  if constexpr (takes_members<T>(std::make_index_sequence<count + 1>{})) {
    return member_count<T, count + 1>();
  } else {
    return count;
  }
}

// A field with what else is said of it, for lists that say more: visit(self.x, Noted{self.y, Note{...}}).
template <typename T, typename Note>
struct Noted {
  T& value;
  Note note;
};
template <typename T, typename Note>
Noted(T&, Note) -> Noted<T, Note>;

template <typename T>
constexpr T& value_of(T& field) {
  return field;
}
template <typename T, typename Note>
constexpr T& value_of(Noted<T, Note>& field) {
  return field.value;
}

struct NoNote {};
template <typename T>
constexpr NoNote note_of(T& /*field*/) {
  return {};
}
template <typename T, typename Note>
constexpr const Note& note_of(Noted<T, Note>& field) {
  return field.note;
}

struct FieldCounter {
  template <typename... Fields>
  constexpr std::integral_constant<std::size_t, sizeof...(Fields)> operator()(Fields&&... /*fields*/) const {
    return {};
  }
};

template <typename T>
concept HasFields = requires(T& value) {
  std::remove_const_t<T>::fields(value, FieldCounter{});
};

template <HasFields T>
constexpr std::size_t field_count() {
  return decltype(T::fields(std::declval<T&>(), FieldCounter{}))::value;
}

// visit(field) for each of them as it stands in the list, noted or not, in the list's order.
template <HasFields T, typename Visit>
constexpr void for_each_listed(T& value, Visit&& visit) {
  using Value = std::remove_const_t<T>;
  static_assert(std::is_aggregate_v<Value>);
  static_assert(field_count<Value>() == member_count<Value>(),
                "fields() of the struct lacks a member, or names it twice");
  Value::fields(value, [&](auto&&... fields) { (visit(fields), ...); });
}

// visit(value of the field).
template <HasFields T, typename Visit>
constexpr void for_each_field(T& value, Visit&& visit) {
  for_each_listed(value, [&](auto& field) { visit(value_of(field)); });
}

// Of an enumeration that may be a field, with the values 0, 1, ..., last: a function beside it says so,
//   constexpr auto enumeration_of(Colour) { return Enumeration{"a colour", Colour::blue}; }
template <typename E>
struct Enumeration {
  const char* what;  // in "WHAT is 7, at most 2"
  E last;
};
template <typename E>
Enumeration(const char*, E) -> Enumeration<E>;  // clang 14, whose clang-tidy we use, deduces no aggregates

}  // namespace chorus
