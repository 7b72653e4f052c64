// What chorus and chorus-ray say to each other over an inherited socket: one JSON object a line (docs/ray.md).
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace chorus::ray_launcher {

using Json = nlohmann::json;

class Channel {
 public:
  explicit Channel(int descriptor) : descriptor_(descriptor) {}

  // Never waits: what the reader has no room for is kept, 16 MiB at most, and goes out with the next call of this
  // class. A dead reader, or one that lets it grow further, is no error: closed() tells.
  void send(const Json& message);
  // Waits at most that long until all is out.
  void flush(int timeout_ms);
  // The next object, waiting at most timeout_ms; nothing: none came, or closed(). Throws std::runtime_error on what is
  // no object.
  std::optional<Json> receive(int timeout_ms);
  // The other side has ended, and all that it said is read.
  bool closed() const { return closed_; }
  // It has ended; without reading.
  bool hung_up() const;

 private:
  int descriptor_;
  std::string received_;
  std::string unsent_;
  bool closed_ = false;
};

}  // namespace chorus::ray_launcher
