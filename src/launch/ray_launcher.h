// The distributed engine Ray as a head sees it: the program chorus-ray, which knows Ray and is a child of this process.
// It is told what to place, over a socket with one JSON object a line (docs/ray.md), and says what becomes of it. Ends
// with this object, or with this process, and everything that it has placed ends with it.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "json/json.h"
#include "net/unique_fd.h"
#include "worker/child_process.h"

namespace chorus {

struct RayNode {
  std::string address;
  bool here = false;  // on this machine
  double cpus = 0, cpus_free = 0;
  double memory_bytes = 0;  // that Ray counts
};

struct RayCluster {
  std::string address;         // of its head
  std::string own_node;        // the address of the node that is this machine
  std::vector<RayNode> nodes;  // this machine first
  bool all_here() const;
};

// What is on one node whole: a rank, or one of several parts of it.
struct RayPart {
  std::string node;                  // the address that it is held to; empty: any
  std::vector<std::string> command;  // what its actor starts, and ends with
};

struct RayRank {
  int rank = 0;
  std::vector<RayPart> parts;
};

struct RayEvent {
  enum class Kind : unsigned char {
    placed,  // text: the node's address
    lost,    // its process is gone, Ray starts it again; text: why
    failed,  // it is not started again, nor is its rank; text: why
    note,    // for the log
    ended,   // chorus-ray itself; text: why
  };
  Kind kind = Kind::note;
  int rank = -1;
  int part = 0;
  std::string text;
};

class RayLauncher {
 public:
  // `program` is chorus-ray. `address`: of a cluster, HOST:PORT or auto; empty: it starts its own with that many
  // `cpus`, within timeout_ms. Errors: the program is not there.
  static Result<std::unique_ptr<RayLauncher>> start(const std::string& program, const std::string& address, int cpus,
                                                    int timeout_ms);
  ~RayLauncher();

  // The cluster when it is connected, waiting at most that long. Errors: what chorus-ray says, or its end.
  Result<std::optional<RayCluster>> wait_for_cluster(int timeout_ms);
  // Once. `cpus`: of each part. `only_here`: why none can be on another machine, empty: it can. Errors: chorus-ray does
  // not read.
  Result<void> place(const std::vector<RayRank>& ranks, int cpus, const std::string& only_here);

  int descriptor() const { return socket_.get(); }  // readable: take() has something
  // What has come; never waits. `ended` comes once and is the last.
  std::vector<RayEvent> take();

 private:
  RayLauncher(ChildProcess process, UniqueFd socket) : process_(std::move(process)), socket_(std::move(socket)) {}
  Result<std::optional<Json>> receive(int timeout_ms);
  Result<void> send(const Json& message);
  Error end_of(const std::string& why);

  ChildProcess process_;
  UniqueFd socket_;  // invalid: it has ended
  std::string received_;
  int send_within_ms_ = 0;
};

// The path of `name` in the folder of `program`.
std::string beside_program(const std::string& program, const std::string& name);

}  // namespace chorus
