// What the parsers of tool calls share: content with white space kept back, and calls as they are told.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "server/openai/call_scanner.h"
#include "server/openai/tool_call_parser.h"

namespace chorus {

// How much of a marker has come. None of ours has its first byte a second time, so after a mismatch the next one begins
// at the earliest with the byte that did not match.
class MarkerMatch {
 public:
  enum class Step : std::uint8_t { none, partial, whole };
  explicit MarkerMatch(std::string_view marker) : marker_(marker) {}
  // none: the byte is not of it, and what came before is in take_seen().
  Step push(char byte);
  std::string_view seen() const { return marker_.substr(0, matched_); }
  std::string_view take_seen() { return marker_.substr(0, std::exchange(matched_, 0)); }  // and begins anew
  std::string_view marker() const { return marker_; }

 private:
  std::string_view marker_;
  std::size_t matched_ = 0;
};

class CallStream : public ToolCallParser {
 public:
  // `marker`: what stands before calls.
  explicit CallStream(std::string_view marker) : marker_(marker) {}
  void push(std::string_view text, OutputDelta* out) final;
  void finish(OutputDelta* out) final;
  std::uint32_t calls() const final { return calls_; }

 protected:
  // Takes a byte; false: the state has changed, and the byte is to be taken in the new one.
  virtual bool take(char byte) = 0;

  // Takes a byte of content, or of the marker that ends it; the whole marker is kept.
  MarkerMatch::Step take_before_marker(char byte);
  MarkerMatch& marker() { return marker_; }
  void content(char byte);
  void content(std::string_view text) {
    for (const char byte : text) content(byte);
  }
  // What is content if no call comes of it.
  void keep(char byte) { raw_ += byte; }
  void keep(std::string_view text) { raw_ += text; }
  void give_up();  // no call came of it
  void forget() { raw_.clear(); }

  enum class CallStep : std::uint8_t { more, ended, ended_before, no_call };
  void begin_object() { scanner_ = CallScanner(); }
  void begin_arguments(std::string name) { scanner_ = CallScanner(std::move(name)); }
  CallStep take_of_call(char byte);

 private:
  void tell();

  MarkerMatch marker_;
  OutputDelta* out_ = nullptr;  // while push() or finish() runs
  CallScanner scanner_;
  std::string space_, raw_;
  bool told_ = false;         // the scanner's call has been told of
  bool behind_call_ = false;  // nothing but white space has come since a call
  std::uint32_t calls_ = 0;
};

}  // namespace chorus
