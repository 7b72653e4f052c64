#include "parallel/store/store_table.h"

#include <gtest/gtest.h>

#include "parallel/store/store_check.h"

namespace chorus {
namespace {

std::string greeting() {
  std::string bytes(1, static_cast<char>(StoreRequest::validate));
  append_store_value(&bytes, tcp_store_mark);
  return bytes;
}

std::string set(std::string_view key, std::string_view value) {
  std::string bytes(1, static_cast<char>(StoreRequest::set));
  append_store_text(&bytes, key);
  append_store_text(&bytes, value);
  return bytes;
}

std::string request_of_keys(StoreRequest kind, std::size_t count, std::string_view key) {
  std::string bytes(1, static_cast<char>(kind));
  append_store_value<std::uint64_t>(&bytes, count);
  for (std::size_t i = 0; i < count; ++i) append_store_text(&bytes, key);
  return bytes;
}

// Gives `bytes` to a session of its own in pieces of `piece` bytes, and says how often a request was read.
struct Fed {
  std::string output;
  int reads = 0;
};
Fed feed(std::string_view bytes, std::size_t piece) {
  StoreTable table;
  StoreTable::Session* const session = table.open();
  Fed fed;
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    session->input += bytes.substr(at, piece);
    fed.reads += session->input.size() >= session->bytes_needed ? 1 : 0;
    EXPECT_TRUE(table.answer(session).ok());
  }
  EXPECT_EQ(session->input, "") << "pieces of " << piece;
  fed.output = session->output;
  return fed;
}

TEST(StoreTable, AnswersAreTheSameInPiecesOfEverySize) {
  std::string bytes = greeting() + set("/a", "value") + request_of_keys(StoreRequest::multi_get, 3, "/a");
  bytes += static_cast<char>(StoreRequest::multi_set);
  append_store_value<std::uint64_t>(&bytes, 2);
  for (const char* const text : {"/b", "one", "/c", ""}) append_store_text(&bytes, text);
  bytes += static_cast<char>(StoreRequest::compare_set);
  for (const char* const text : {"/b", "one", "two"}) append_store_text(&bytes, text);
  bytes += static_cast<char>(StoreRequest::add);
  append_store_text(&bytes, "/n");
  append_store_value<std::int64_t>(&bytes, 7);
  bytes += static_cast<char>(StoreRequest::append) + set("/c", "more").substr(1);
  bytes += request_of_keys(StoreRequest::multi_get, 2, "/c") + request_of_keys(StoreRequest::check, 1, "/b");
  bytes += static_cast<char>(StoreRequest::ping);
  append_store_value<std::uint32_t>(&bytes, 5);
  const std::string whole = feed(bytes, bytes.size()).output;
  EXPECT_GT(whole.size(), 3 * 13U + 11U + 8U);
  for (std::size_t piece = 1; piece < bytes.size(); ++piece) EXPECT_EQ(feed(bytes, piece).output, whole);
}

// Goal: one slow client does not keep the server's thread busy for everybody. A request of many keys that comes byte by
// byte is read a few times, not once a byte: a key not yet seen has 8 bytes at the least.
TEST(StoreTable, ARequestInPiecesIsNotReadAgainWithEachOfThem) {
  const std::string bytes = greeting() + request_of_keys(StoreRequest::check, 4000, "/key");
  EXPECT_LE(feed(bytes, 1).reads, 32);  // of 48,014 pieces; 12 / (12 - 8) = 3 times nearer with each
}

TEST(StoreTable, ALongValueIsReadWhenAllOfItIsThere) {
  const std::string bytes = greeting() + set("/a", std::string(100'000, 'v'));
  EXPECT_LE(feed(bytes, 10).reads, 8);
}

}  // namespace
}  // namespace chorus
