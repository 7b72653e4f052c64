#include "cli/read_line.h"

namespace chorus {

Result<bool> read_line(std::istream& in, const std::string& name, std::size_t number, std::size_t bytes_max,
                       std::string* line) try {
  using Traits = std::istream::traits_type;
  line->clear();
  std::streambuf& bytes = *in.rdbuf();
  Traits::int_type next = bytes.sbumpc();
  if (Traits::eq_int_type(next, Traits::eof())) return false;
  for (; !Traits::eq_int_type(next, Traits::eof()); next = bytes.sbumpc()) {
    const char byte = Traits::to_char_type(next);
    if (byte == '\n') break;
    if (line->size() == bytes_max) {
      return fail(ErrorCode::invalid_argument, "{} line {}: longer than {} bytes", name, number, bytes_max);
    }
    line->push_back(byte);
  }
  if (number == 1 && line->starts_with("\xef\xbb\xbf")) line->erase(0, 3);  // byte order mark
  return true;
} catch (const std::ios_base::failure& error) {  // read(2) failed: a disk, a network file system, a directory
  return fail(ErrorCode::invalid_argument, "{} line {}: cannot be read: {}", name, number, error.what());
}

}  // namespace chorus
