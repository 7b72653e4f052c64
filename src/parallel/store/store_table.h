// What the TCP store's server keeps, and what it answers to the requests of its clients (tcp_store_protocol.h): bytes
// in, bytes out. No socket, no thread, no clock: tcp_store_server.cc carries the bytes. Private to this room.
#pragma once

#include <cstddef>
#include <list>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "parallel/store/tcp_store_protocol.h"

namespace chorus {

inline constexpr std::size_t store_bytes_max = std::size_t{1} << 30;          // all keys and values
inline constexpr std::size_t store_input_bytes_max = std::size_t{32} << 20;   // one request
inline constexpr std::size_t store_output_bytes_max = std::size_t{64} << 20;  // answers that a client has not taken

class StoreRequestReader;

class StoreTable {
 public:
  // A client. Its owner appends to `input` what has come and takes the answers out of `output`.
  struct Session {
    std::string input;
    std::string output;
    bool validated = false;
    // No request begins `input` that has fewer bytes. Without it one of many keys that comes in small pieces would be
    // read from its beginning with each piece.
    std::size_t bytes_needed = 1;
    std::vector<std::string> waits_for;  // keys of its pending wait; empty: none
  };
  // Stays where it is until it is closed.
  Session* open() { return &sessions_.emplace_back(); }
  void close(Session* session);

  // Answers the whole requests of session->input and takes them out of it. Other sessions whose waits end by it get
  // their answers, too. An error is final, the session is to be closed: what came is no request, or over a limit.
  Result<void> answer(Session* session);

  std::size_t bytes() const { return bytes_; }  // of keys and values

 private:
  using Reader = StoreRequestReader;
  Result<std::size_t> answer_first(Session* session, std::string_view bytes);
  bool dispatch(Session* session, StoreRequest kind, Reader* reader);
  bool multi_set(Reader* reader);
  bool compare_set(Session* session, Reader* reader);
  bool add(Session* session, Reader* reader);
  bool wait(Session* session, Reader* reader);
  bool store(const std::string& key, std::string_view value);
  std::size_t erase(std::string_view key);
  bool append_value_of(Session* session, std::string_view key);
  bool all_there(const std::vector<std::string>& keys) const;

  std::list<Session> sessions_;
  std::map<std::string, std::string, std::less<>> values_;
  std::size_t bytes_ = 0;
};

}  // namespace chorus
