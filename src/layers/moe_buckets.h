// How a MoeLayer groups rows by expert. Private to the layer's files.
#pragma once

#include <algorithm>

#include "layers/moe.h"

namespace chorus {

// Inputs of all experts one after another: expert e of this rank computes places [first[e], first[e + 1]). In scratch.
struct MoeLayer::Buckets {
  std::int64_t count = 0;            // inputs that have an expert
  std::int64_t* place_of = nullptr;  // of input i, where it has an expert
  std::int64_t* first = nullptr;     // [experts + 1]
};

template <typename BucketOf>
MoeLayer::Buckets MoeLayer::sort(const LayerContext& context, std::int64_t count, const BucketOf& bucket_of) const {
  const auto experts = static_cast<std::int64_t>(experts_.size());
  Buckets buckets;
  buckets.place_of = context.device.scratch().take_array<std::int64_t>(count);
  buckets.first = context.device.scratch().take_array<std::int64_t>(experts + 1);
  std::int64_t* next = context.device.scratch().take_array<std::int64_t>(experts);
  std::fill_n(next, experts, 0);
  for (std::int64_t i = 0; i < count; ++i) {
    if (const std::int64_t bucket = bucket_of(i); bucket >= 0) ++next[bucket];
  }
  buckets.first[0] = 0;
  for (std::int64_t e = 0; e < experts; ++e) {
    buckets.first[e + 1] = buckets.first[e] + next[e];
    next[e] = buckets.first[e];
  }
  for (std::int64_t i = 0; i < count; ++i) {
    if (const std::int64_t bucket = bucket_of(i); bucket >= 0) buckets.place_of[i] = next[bucket]++;
  }
  buckets.count = buckets.first[experts];
  return buckets;
}

}  // namespace chorus
