// The rows of `generate` on their way into the output file. A command that ends early leaves those that are finished in
// PATH.partial, and beside it a journal that says which rows of which input they are: the same command goes on after
// them. Who wants to start anew removes PATH.partial.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/digest.h"
#include "base/result.h"
#include "cli/output_file.h"
#include "json/journal.h"

namespace chorus {

// What the bytes of a row depend on beside the row, by name. Not the sizes, the cache and the batches, on which they do
// not depend.
using RowDependencies = std::vector<std::pair<std::string, std::string>>;

// A line of the journal: the first `rows` rows of the input have become the first `bytes` bytes of the output. A digest
// is of the one in the record before and of what came since.
struct RowRecord {
  std::uint64_t rows = 0, failed = 0, bytes = 0;
  std::string input, output;  // digests of those rows and of those bytes
};
ByteHash digest_after(const std::string& digest_before);
void add_row(const Hash128& row, ByteHash* input);

class RowOutput {
 public:
  // As OutputFile::open(). Stdout, devices and pipes are written without a journal. What an earlier run has left is
  // compared with `dependencies` and with its journal; why it is not gone on from is logged.
  static Result<std::unique_ptr<RowOutput>> open(const std::string& path, const std::vector<std::string>& inputs,
                                                 const RowDependencies& dependencies);
  RowOutput(const RowOutput&) = delete;
  RowOutput& operator=(const RowOutput&) = delete;
  ~RowOutput();  // without commit(): rows that were recorded stay

  // What is there, ascending. Each is worth keeping if the input begins with its rows.
  const std::vector<RowRecord>& found() const { return found_; }
  // Before the first write(): keeps the rows of the first `count` of found() and drops the others.
  Result<void> go_on_after(std::size_t count);
  std::int64_t begun_unix_s() const { return begun_unix_s_; }  // when the first row was, maybe in an earlier process

  // The next line of the output, with its newline: what became of the row of that hash.
  Result<void> write(std::string_view line, const Hash128& row, bool failed);
  // What was written is with the kernel when it returns. About once a second it is also synced and recorded.
  Result<void> flush();
  Result<void> commit();  // whole: it gets its name
  // The command ends before its work is done: records what there is. The error says how much that is.
  Error end_early(Error why);

  std::uint64_t failed() const { return written_.failed; }  // rows, those that were kept included

 private:
  // Up to here.
  struct Progress {
    std::uint64_t rows = 0, failed = 0, bytes = 0;
    ByteHash input, output;  // since the last record
  };
  explicit RowOutput(OutputFile file, std::int64_t now_unix_s);
  Result<void> open_journal(const RowDependencies& dependencies);
  void find_records();
  Result<void> write_pending();
  Result<void> record();

  OutputFile file_;
  std::optional<Journal> journal_;
  std::int64_t begun_unix_s_;
  std::vector<RowRecord> found_;
  RowRecord recorded_;  // the last one in the journal
  Progress written_;
  std::string pending_;   // whole lines that are not with the kernel yet
  Progress with_kernel_;  // written_ without them
  Nanoseconds recorded_at_ = 0;
};

}  // namespace chorus
