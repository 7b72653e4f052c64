#include "parallel/store/store.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "parallel/store/tcp_store.h"

namespace chorus {
namespace {

constexpr int long_ms = 20'000;

std::string temporary_path(const std::string& name) {
  const auto path = std::filesystem::path(testing::TempDir()) / (name + "." + std::to_string(::getpid()));
  std::filesystem::remove(path);
  return path;
}

// One world of stores of each kind: open() gives another participant.
struct Kind {
  std::string name;
  std::function<std::shared_ptr<Store>()> open;
};

std::vector<Kind> kinds() {
  const std::shared_ptr<Store> memory = make_memory_store();
  const std::string path = temporary_path("kinds.store");
  const auto tcp_kind = [](const std::string& name, const std::shared_ptr<const ClusterKey>& key) {
    auto started = TcpStoreServer::start("127.0.0.1", 0, key);
    EXPECT_TRUE(started.ok());
    const std::shared_ptr<TcpStoreServer> server = std::move(*started);
    return Kind{name, [=]() -> std::shared_ptr<Store> {
                  return std::move(connect_tcp_store("127.0.0.1", server->port(), long_ms, key)).value();
                }};
  };
  return {{"memory", [=] { return memory; }},
          {"file", [=]() -> std::shared_ptr<Store> { return std::move(open_file_store(path)).value(); }},
          tcp_kind("tcp", nullptr),
          tcp_kind("tcp, guarded", std::make_shared<ClusterKey>(std::string(40, 'k')))};
}

TEST(Store, AllKindsBehaveAlike) {
  for (const Kind& kind : kinds()) {
    SCOPED_TRACE(kind.name);
    const auto a = kind.open(), b = kind.open();
    ASSERT_TRUE(a->set("key", std::string_view("\0value", 6), long_ms).ok());
    EXPECT_EQ(*b->get("key", long_ms), std::string("\0value", 6));
    ASSERT_TRUE(a->set("key", "", long_ms).ok());
    EXPECT_EQ(*a->get("key", long_ms), "");
    EXPECT_EQ(*a->add("n", 5, long_ms), 5);
    EXPECT_EQ(*b->add("n", -7, long_ms), -2);
    EXPECT_EQ(*b->get("n", long_ms), "-2");
    EXPECT_EQ(*a->compare_set("c", "x", "y", long_ms), "x");  // not there: nothing set
    EXPECT_FALSE(*a->check(std::vector<std::string>{"c", "n"}, long_ms));
    EXPECT_EQ(*a->compare_set("c", "", "y", long_ms), "y");
    EXPECT_EQ(*b->compare_set("c", "z", "w", long_ms), "y");
    EXPECT_EQ(*b->compare_set("c", "y", "w", long_ms), "w");
    EXPECT_TRUE(*a->check(std::vector<std::string>{"c", "n"}, long_ms));
    EXPECT_TRUE(*b->delete_key("c", long_ms));
    EXPECT_FALSE(*a->delete_key("c", long_ms));
    EXPECT_FALSE(*a->check(std::vector<std::string>{"c"}, long_ms));
  }
}

TEST(Store, WaitEndsWhenTheLastKeyComes) {
  for (const Kind& kind : kinds()) {
    SCOPED_TRACE(kind.name);
    std::thread writer([&] {
      const auto store = kind.open();
      EXPECT_TRUE(store->set("first", "1", long_ms).ok());
      EXPECT_EQ(*store->get("go", long_ms), "");
      EXPECT_TRUE(store->set("second", "2", long_ms).ok());
    });
    const auto store = kind.open();
    EXPECT_TRUE(store->wait(std::vector<std::string>{"first"}, long_ms).ok());
    EXPECT_FALSE(*store->check(std::vector<std::string>{"first", "second"}, long_ms));
    EXPECT_TRUE(store->set("go", "", long_ms).ok());
    EXPECT_TRUE(store->wait(std::vector<std::string>{"first", "second"}, long_ms).ok());
    EXPECT_EQ(*store->get("second", long_ms), "2");
    writer.join();
  }
}

TEST(Store, DeadlinesNameTheKeyAndTheLimitAndBreakNothing) {
  for (const Kind& kind : kinds()) {
    SCOPED_TRACE(kind.name);
    const auto store = kind.open();
    const auto missing = store->get("missing", 30);
    ASSERT_FALSE(missing.ok());
    EXPECT_EQ(missing.error().code, ErrorCode::deadline_exceeded);
    EXPECT_EQ(missing.error().message, "store key missing was not set within 30 ms");
    EXPECT_FALSE(store->wait(std::vector<std::string>{"missing", "too"}, 30).ok());
    ASSERT_TRUE(store->set("missing", "1", long_ms).ok());
    EXPECT_EQ(*store->get("missing", long_ms), "1");
  }
}

TEST(Store, BoundsAreErrors) {
  for (const Kind& kind : kinds()) {
    SCOPED_TRACE(kind.name);
    const auto store = kind.open();
    EXPECT_EQ(store->set("", "x", long_ms).error().code, ErrorCode::invalid_argument);
    EXPECT_FALSE(store->set(std::string(store_key_bytes_max + 1, 'k'), "x", long_ms).ok());
    EXPECT_FALSE(store->set("big", std::string(store_value_bytes_max + 1, 'v'), long_ms).ok());
    const std::string largest(store_value_bytes_max, 'v');
    EXPECT_TRUE(store->set(std::string(store_key_bytes_max - 1, 'k'), largest, long_ms).ok());
    EXPECT_EQ(*store->get(std::string(store_key_bytes_max - 1, 'k'), long_ms), largest);
    ASSERT_TRUE(store->set("text", "no number", long_ms).ok());
    EXPECT_FALSE(store->add("text", 1, long_ms).ok());
  }
}

// Goal: no increment is lost whoever makes it.
TEST(Store, CountersAddUpOverParticipants) {
  for (const Kind& kind : kinds()) {
    SCOPED_TRACE(kind.name);
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        const auto store = kind.open();
        for (int n = 0; n < 50; ++n) EXPECT_TRUE(store->add("n", 1, long_ms).ok());
      });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(*kind.open()->add("n", 0, long_ms), 200);
  }
}

TEST(Store, PrefixesSeparateRuns) {
  const auto store = make_memory_store();
  const auto a = make_prefix_store(store, "chorus/a"), b = make_prefix_store(store, "chorus/b");
  ASSERT_TRUE(a->set("key", "1", long_ms).ok());
  EXPECT_FALSE(*b->check(std::vector<std::string>{"key"}, long_ms));
  EXPECT_EQ(*store->get("chorus/a/key", long_ms), "1");
}

// Goal: whatever prefix of a record a killed writer left, the others read what was before and write on. Method: a log
// cut at every length.
TEST(FileStore, ATornRecordIsAsIfNotWritten) {
  const std::string path = temporary_path("torn.store");
  std::vector<std::uintmax_t> ends{0};
  {
    const auto store = std::move(open_file_store(path)).value();
    for (const char* key : {"a", "b"}) {
      ASSERT_TRUE(store->set(key, "value", long_ms).ok());
      ends.push_back(std::filesystem::file_size(path));
    }
  }
  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  for (std::size_t length = 0; length <= bytes.size(); ++length) {
    SCOPED_TRACE(length);
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes.substr(0, length);
    const auto reader = std::move(open_file_store(path)).value(), writer = std::move(open_file_store(path)).value();
    EXPECT_EQ(*reader->check(std::vector<std::string>{"a"}, long_ms), length >= ends[1]);
    EXPECT_EQ(*reader->check(std::vector<std::string>{"b"}, long_ms), length >= ends[2]);
    ASSERT_TRUE(writer->set("c", "later", long_ms).ok());
    EXPECT_EQ(*reader->get("c", long_ms), "later");
    EXPECT_EQ(*reader->check(std::vector<std::string>{"a"}, long_ms), length >= ends[1]);
  }
}

// Goal: a process that is killed while it writes keeps nobody out. Method: a child that only writes, killed.
TEST(FileStore, SurvivesAKilledWriter) {
  const std::string path = temporary_path("killed.store");
  const auto store = std::move(open_file_store(path)).value();
  for (int round = 0; round < 3; ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      const auto mine = std::move(open_file_store(path)).value();
      const std::string value(1 << 18, 'x');
      for (int n = 0; n < 40; ++n) {
        (void)mine->set("big", value, long_ms);
        (void)mine->add("round", 1, long_ms);
      }
      ::pause();
    }
    ASSERT_TRUE(store->wait(std::vector<std::string>{"round"}, long_ms).ok());
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    EXPECT_EQ(store->get("big", long_ms)->size(), 1U << 18);
    EXPECT_TRUE(*store->delete_key("round", long_ms));
  }
}

TEST(FileStore, RefusesAFileThatIsSomethingElse) {
  const std::string path = temporary_path("other.store");
  std::ofstream(path) << "precious data of the user";
  const auto store = open_file_store(path);
  ASSERT_FALSE(store.ok());
  EXPECT_EQ(store.error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(std::filesystem::file_size(path), 25U);
}

}  // namespace
}  // namespace chorus
