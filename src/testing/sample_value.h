// Values to tell members apart with, made without the list of fields (base/fields.h) that they test: an aggregate's
// members are told to its braces, which know them all.
#pragma once

#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/fields.h"

namespace chorus {

template <typename T>
T sample_value(int seed);

template <typename T>
inline constexpr bool is_optional = false;
template <typename T>
inline constexpr bool is_optional<std::optional<T>> = true;

// A member's initializer: a value that depends on the seed, for every type that messages hold.
struct SampleMember {
  int seed = 0;
  template <typename T>
  requires(!is_optional<T>)  // which makes itself of what it may hold
  operator T() const {       // NOLINT: implicit, so that braces take it
    return sample_value<T>(seed);
  }
};

template <typename T>
struct SampleOf {
  template <std::size_t... i>
  static T aggregate(int seed, std::index_sequence<i...> /*members*/) {
    return T{(static_cast<void>(i), SampleMember{seed})...};
  }
  static T make(int seed) {
    if constexpr (std::is_same_v<T, bool>) {
      return seed % 2 != 0;
    } else if constexpr (std::is_enum_v<T>) {
      return static_cast<T>(seed % (static_cast<int>(enumeration_of(T{}).last) + 1));
    } else if constexpr (std::is_arithmetic_v<T>) {
      return static_cast<T>(seed + 1);
    } else {
      return aggregate(seed, std::make_index_sequence<member_count<T>()>{});
    }
  }
};
template <>
struct SampleOf<std::string> {
  static std::string make(int seed) { return "text " + std::to_string(seed); }
};
template <typename T>
struct SampleOf<std::optional<T>> {
  static std::optional<T> make(int seed) { return sample_value<T>(seed); }
};
template <typename T>
struct SampleOf<std::vector<T>> {
  static std::vector<T> make(int seed) { return {sample_value<T>(seed), sample_value<T>(seed)}; }
};
template <typename First, typename Second>
struct SampleOf<std::pair<First, Second>> {
  static std::pair<First, Second> make(int seed) { return {sample_value<First>(seed), sample_value<Second>(seed)}; }
};

// Differs from the sample of seed + 1 in every member.
template <typename T>
T sample_value(int seed) {
  return SampleOf<T>::make(seed);
}

template <typename T, std::size_t... i>
T sample_with(int seed, std::size_t changed, std::index_sequence<i...> /*members*/) {
  return T{SampleMember{i == changed ? seed + 1 : seed}...};
}

// The samples that differ from sample_value<T>(seed) in one member each: as many as T has members.
template <typename T>
std::vector<T> samples_with_one_change(int seed) {
  constexpr std::size_t count = member_count<T>();
  std::vector<T> samples;
  for (std::size_t changed = 0; changed < count; ++changed) {
    samples.push_back(sample_with<T>(seed, changed, std::make_index_sequence<count>{}));
  }
  return samples;
}

}  // namespace chorus
