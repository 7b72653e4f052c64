// Where ranks meet: the store, over a socket and in a file, and what they publish there.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>

#include "base/check.h"
#include "parallel/launch/launcher.h"
#include "parallel/launch/rendezvous_member.h"
#include "parallel/store/store.h"
#include "parallel/store/store_table.h"
#include "parallel/transport/tcp_contact.h"
#include "targets.h"

namespace chorus::fuzz {
namespace {

// What a client of the store says first, and a wait for a key.
std::string greeting() {
  std::string bytes(1, static_cast<char>(StoreRequest::validate));
  append_store_value(&bytes, tcp_store_mark);
  return bytes;
}
std::string wait_for(std::string_view key) {
  std::string bytes(1, static_cast<char>(StoreRequest::wait));
  append_store_value<std::uint64_t>(&bytes, 1);
  append_store_text(&bytes, key);
  return bytes;
}

void read_contact(std::string_view bytes) {
  static const ClusterKey key(std::string(cluster_key_bytes_min, 'k'));
  CHECK(!decode_contact(bytes, &key).ok(), "a contact that nobody has signed was taken");
  const auto contact = decode_contact(bytes, nullptr);
  if (contact.ok() && encode_contact(*contact, nullptr) != bytes) std::abort();
}

void read_member(std::string_view bytes) {
  const auto member = decode_member(bytes);
  if (member.ok() && encode_member(*member) != bytes) std::abort();
}

// Lines of NAME=VALUE.
void read_variables(std::string_view text) {
  std::map<std::string, std::string, std::less<>> variables;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const std::size_t cut = std::min(line.find('='), line.size());
    variables.emplace(line.substr(0, cut), cut < line.size() ? line.substr(cut + 1) : "");
  }
  const auto detected = detect_launcher([&](const std::string& name) {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  });
  if (!detected.ok()) return;
  CHECK(detected->rank >= 0 && detected->rank < detected->world_size);
  CHECK(detected->world_size <= launcher_world_size_max);
  CHECK(detected->local_world_size >= 0 && detected->local_world_size <= detected->world_size);
  CHECK(detected->local_rank >= 0 && detected->local_rank < std::max(1, detected->world_size));
}

}  // namespace

void run_store(std::string_view input) {
  // Once whole and once cut: the answers are the same, and those to another client that waits for a key.
  const auto answers = [&](std::size_t piece) {
    StoreTable table;
    StoreTable::Session* const waiting = table.open();
    waiting->input = greeting() + wait_for("/k");
    CHECK(table.answer(waiting).ok());
    StoreTable::Session* const session = table.open();
    session->input = greeting();
    for (std::size_t at = 0; at < input.size(); at += piece) {
      session->input += input.substr(at, piece);
      if (!table.answer(session).ok()) break;
    }
    const std::string all = session->output + waiting->output;
    CHECK(all.size() <= store_output_bytes_max + store_value_bytes_max);
    table.close(session);
    return all;
  };
  if (answers(input.size() + 1) != answers(input.size() / 40 + 1)) std::abort();
}

void run_store_file(std::string_view input) {
  // The file of a job, as someone left it; then a rank uses it.
  static const Folder folder;
  folder.write("store", input);
  const auto opened = open_file_store(folder.path() + "/store");
  if (!opened.ok()) return;
  Store& store = **opened;
  const std::array<std::string, 1> keys = {"k"};
  constexpr int at_once = 0;
  if (const auto there = store.check(keys, at_once); there.ok() && *there) (void)store.get("k", at_once);
  (void)store.add("n", 1, at_once);
  if (!store.set("k", "v", at_once).ok()) return;
  const auto value = store.get("k", at_once);
  CHECK(value.ok() && *value == "v", "what was set is not there");
}

void run_rendezvous(std::string_view input) {
  if (input.empty()) return;
  const std::string_view rest = input.substr(1);
  switch (static_cast<unsigned char>(input[0]) % 4) {
    case 0:
      return read_contact(rest);
    case 1:
      return read_member(rest);
    case 2:
      return read_variables(rest);
    default:
      CHECK(first_slurm_host(std::string(rest)).size() <= rest.size());
  }
}

}  // namespace chorus::fuzz
