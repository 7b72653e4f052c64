#include "tokenizer/token_finder.h"

#include <algorithm>

namespace chorus {
namespace {

// The byte that is `depth` bytes before the end.
unsigned char byte_from_end(std::string_view text, std::size_t depth) {
  return static_cast<unsigned char>(text[text.size() - 1 - depth]);
}

}  // namespace

TokenFinder::TokenFinder(const std::vector<Token>& tokens) {
  std::vector<Token> sorted;
  for (const Token& token : tokens) {
    if (!token.text.empty()) sorted.push_back(token);
  }
  if (sorted.empty()) return;
  std::ranges::stable_sort(sorted, [](const Token& a, const Token& b) {
    return std::lexicographical_compare(
        a.text.rbegin(), a.text.rend(), b.text.rbegin(), b.text.rend(),
        [](char x, char y) { return static_cast<unsigned char>(x) < static_cast<unsigned char>(y); });
  });
  const auto twins = std::ranges::unique(sorted, {}, &Token::text);
  sorted.erase(twins.begin(), twins.end());
  build_tree(sorted);
  link();
}

// Level by level, so that a node's children lie side by side, in the order of their bytes.
void TokenFinder::build_tree(const std::vector<Token>& sorted) {
  struct Range {
    std::size_t begin, end;  // of the strings that go through a node
  };
  std::vector<Range> ranges = {{0, sorted.size()}};
  nodes_.emplace_back();
  for (std::uint32_t node = 0; node < nodes_.size(); ++node) {
    auto [begin, end] = ranges[node];
    const std::uint32_t depth = nodes_[node].depth;
    if (sorted[begin].text.size() == depth) nodes_[node].id = sorted[begin++].id;
    nodes_[node].first_child = static_cast<std::uint32_t>(nodes_.size());
    while (begin < end) {
      const unsigned char byte = byte_from_end(sorted[begin].text, depth);
      std::size_t next = begin;
      while (next < end && byte_from_end(sorted[next].text, depth) == byte) ++next;
      Node child;
      child.byte = byte;
      child.depth = depth + 1;
      ranges.push_back({begin, next});
      nodes_.push_back(child);
      ++nodes_[node].child_count;
      begin = next;
    }
  }
  for (std::uint32_t n = 0; n < nodes_[0].child_count; ++n) root_children_[nodes_[1 + n].byte] = 1 + n;
}

void TokenFinder::link() {
  for (std::uint32_t node = 0; node < nodes_.size(); ++node) {
    if (nodes_[node].id != StringTable::none) {
      nodes_[node].longest = node;
    } else {
      nodes_[node].longest = nodes_[nodes_[node].fail].longest;
    }
    const std::uint32_t first = nodes_[node].first_child;
    for (std::uint32_t child = first; child < first + nodes_[node].child_count; ++child) {
      nodes_[child].fail = node == 0 ? 0 : step(nodes_[node].fail, nodes_[child].byte);
    }
  }
}

std::uint32_t TokenFinder::child_of(std::uint32_t node, unsigned char byte) const {
  if (node == 0) return root_children_[byte];
  const auto begin = nodes_.begin() + nodes_[node].first_child;
  const auto end = begin + nodes_[node].child_count;
  const auto found =
      std::lower_bound(begin, end, byte, [](const Node& child, unsigned char b) { return child.byte < b; });
  return found != end && found->byte == byte ? static_cast<std::uint32_t>(found - nodes_.begin()) : 0;
}

std::uint32_t TokenFinder::step(std::uint32_t node, unsigned char byte) const {
  for (;; node = nodes_[node].fail) {
    const std::uint32_t child = child_of(node, byte);
    if (child != 0 || node == 0) return child;
  }
}

std::vector<TokenFinder::Found> TokenFinder::find_all(std::string_view text) const {
  std::vector<Found> found;
  if (nodes_.empty()) return found;
  std::uint32_t node = 0;
  for (std::size_t at = text.size(); at-- > 0;) {
    const auto byte = static_cast<unsigned char>(text[at]);
    node = node == 0 ? root_children_[byte] : step(node, byte);
    if (node == 0) continue;
    const Node& token = nodes_[nodes_[node].longest];
    if (token.depth != 0) found.push_back({at, at + token.depth, token.id});
  }
  // From the left, each behind the one before.
  std::ranges::reverse(found);
  std::size_t kept = 0, done = 0;
  for (const Found& one : found) {
    if (one.begin < done) continue;
    done = one.end;
    found[kept++] = one;
  }
  found.resize(kept);
  return found;
}

}  // namespace chorus
