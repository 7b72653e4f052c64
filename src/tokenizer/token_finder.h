// Finds a set of strings in a text: at the leftmost place where one begins, the longest; then on behind it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/string_table.h"

namespace chorus {

// Aho and Corasick's automaton over the strings read from their ends: one pass from the text's end to its beginning
// tells for each place the longest string that begins there, in time linear in the text whatever the strings are.
class TokenFinder {
 public:
  struct Token {
    std::string_view text;
    std::int32_t id;
  };
  TokenFinder() = default;
  // Of equal texts the first one stays, an empty one is left out.
  explicit TokenFinder(const std::vector<Token>& tokens);

  struct Found {
    std::size_t begin, end;
    std::int32_t id;
  };
  std::vector<Found> find_all(std::string_view text) const;

 private:
  struct Node {
    std::uint32_t first_child = 0;
    std::uint16_t child_count = 0;
    unsigned char byte = 0;  // of the edge that leads here
    std::uint32_t depth = 0;
    std::uint32_t fail = 0;     // the longest other beginning of a string that this one ends in
    std::uint32_t longest = 0;  // the longest whole string that this one ends in, itself included; 0: none
    std::int32_t id = StringTable::none;
  };
  std::uint32_t child_of(std::uint32_t node, unsigned char byte) const;  // 0: none
  std::uint32_t step(std::uint32_t node, unsigned char byte) const;
  void build_tree(const std::vector<Token>& sorted);
  void link();

  std::vector<Node> nodes_;  // nodes_[0]: the root
  std::array<std::uint32_t, 256> root_children_{};
};

}  // namespace chorus
