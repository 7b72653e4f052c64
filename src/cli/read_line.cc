#include "cli/read_line.h"

#include <array>

namespace chorus {

Result<bool> read_line(std::istream& in, const std::string& name, std::size_t number, std::size_t bytes_max,
                       std::string* line) try {
  line->clear();
  in.exceptions(std::ios::badbit);  // so that the stream hands on what its buffer throws
  std::array<char, 4096> piece;
  bool is_cut = true;
  while (is_cut) {
    in.getline(piece.data(), piece.size());  // with what a piece was too short for, only failbit
    const auto count = static_cast<std::size_t>(in.gcount());
    if (count == 0 && line->empty()) return false;
    is_cut = in.fail() && !in.eof();
    line->append(piece.data(), in.good() ? count - 1 : count);  // without the newline
    if (line->size() > bytes_max) {
      return fail(ErrorCode::invalid_argument, "{} line {}: longer than {} bytes", name, number, bytes_max);
    }
    if (is_cut) in.clear();
  }
  if (number == 1 && line->starts_with("\xef\xbb\xbf")) line->erase(0, 3);  // byte order mark
  return true;
} catch (const std::ios_base::failure& error) {  // read(2) failed: a disk, a network file system, a directory
  return fail(ErrorCode::invalid_argument, "{} line {}: cannot be read: {}", name, number, error.what());
}

}  // namespace chorus
