#include <algorithm>

#include "workflow/records.h"

namespace chorus {
namespace {

class CsvReader {
 public:
  CsvReader(std::string_view text, const std::string& name) : text_(text), name_(name) {
    if (text_.starts_with("\xef\xbb\xbf")) at_ = 3;  // byte order mark
  }

  bool at_end() const { return at_ >= text_.size(); }
  std::size_t line() const { return line_; }

  // The fields of the next record; a record may have several lines.
  Result<std::vector<std::string>> next() {
    std::vector<std::string> fields;
    for (;;) {
      CHORUS_TRY(std::string field, read_field());
      fields.push_back(std::move(field));
      if (at_end()) return fields;
      const char separator = text_[at_++];
      if (separator == ',') continue;
      if (separator == '\r' && !at_end() && text_[at_] == '\n') ++at_;
      ++line_;
      return fields;
    }
  }

 private:
  static bool ends_field(char c) { return c == ',' || c == '\n' || c == '\r'; }

  Result<std::string> read_field() {
    if (at_end() || text_[at_] != '"') {
      const std::size_t begin = at_;
      while (!at_end() && !ends_field(text_[at_])) {
        if (text_[at_] == '"')
          return fail(ErrorCode::invalid_argument, "{}: line {}: a quote inside a field without quotes", name_, line_);
        ++at_;
      }
      return std::string(text_.substr(begin, at_ - begin));
    }
    const std::size_t first_line = line_;
    std::string field;
    for (++at_; !at_end(); ++at_) {
      const char c = text_[at_];
      if (c == '\n') ++line_;
      if (c != '"') {
        field.push_back(c);
      } else if (at_ + 1 < text_.size() && text_[at_ + 1] == '"') {
        field.push_back('"');
        ++at_;
      } else {
        ++at_;
        if (at_end() || ends_field(text_[at_])) return field;
        return fail(ErrorCode::invalid_argument, "{}: line {}: text after a closing quote", name_, line_);
      }
    }
    return fail(ErrorCode::invalid_argument, "{}: line {}: a quote is not closed", name_, first_line);
  }

  std::string_view text_;
  const std::string& name_;
  std::size_t at_ = 0;
  std::size_t line_ = 1;
};

}  // namespace

Result<std::vector<Json>> parse_csv(std::string_view text, const std::string& name) {
  CsvReader reader(text, name);
  if (reader.at_end()) return fail(ErrorCode::invalid_argument, "{}: no line with the names of the fields", name);
  CHORUS_TRY(const std::vector<std::string> names, reader.next());
  for (auto it = names.begin(); it != names.end(); ++it) {
    if (std::find(names.begin(), it, *it) != it)
      return fail(ErrorCode::invalid_argument, "{}: two fields are called \"{}\"", name, *it);
  }
  std::vector<Json> records;
  while (!reader.at_end()) {
    const std::size_t line = reader.line();
    CHORUS_TRY(const std::vector<std::string> fields, reader.next());
    if (fields.size() == 1 && fields[0].empty() && names.size() > 1) continue;  // an empty line
    if (fields.size() != names.size()) {
      return fail(ErrorCode::invalid_argument, "{}: line {}: {} fields, the first line names {}", name, line,
                  fields.size(), names.size());
    }
    Json record = Json::object();
    for (std::size_t i = 0; i < names.size(); ++i) record[names[i]] = fields[i];
    records.push_back(std::move(record));
  }
  return records;
}

}  // namespace chorus
