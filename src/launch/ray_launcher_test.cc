#include "launch/ray_launcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace chorus {
namespace {

using ::testing::HasSubstr;

// A shell script in place of chorus-ray: descriptor 3 is its socket.
// The events until the end.
std::vector<RayEvent> events_of(RayLauncher* launcher) {
  std::vector<RayEvent> events;
  while (events.empty() || events.back().kind != RayEvent::Kind::ended) {
    pollfd item{launcher->descriptor(), POLLIN, 0};
    if (::poll(&item, 1, 30'000) <= 0) break;
    for (RayEvent& event : launcher->take()) events.push_back(std::move(event));
  }
  return events;
}

class RayLauncherTest : public ::testing::Test {
 protected:
  RayLauncherTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "chorus-ray-test-XXXXXX").string();
    EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  ~RayLauncherTest() override { std::filesystem::remove_all(directory_); }

  std::unique_ptr<RayLauncher> start(const std::string& script, int timeout_ms) {
    const std::string program = (directory_ / "chorus-ray").string();
    std::ofstream(program) << "#!/bin/sh\n" << script;
    std::filesystem::permissions(program, std::filesystem::perms::owner_all);
    auto launcher = RayLauncher::start(program, "", 2, timeout_ms);
    EXPECT_TRUE(launcher.ok()) << (launcher.ok() ? "" : launcher.error().message);
    return launcher.ok() ? std::move(*launcher) : nullptr;
  }
  // A chorus-ray that does so ends at once, and says `said`.
  void expect_end(const std::string& script, const char* said) {
    const auto launcher = start(script, 30'000);
    ASSERT_NE(launcher, nullptr);
    const std::vector<RayEvent> events = events_of(launcher.get());
    ASSERT_EQ(events.size(), 1U);
    EXPECT_THAT(events[0].text, HasSubstr(said));
  }

  std::filesystem::path directory_;
};

TEST_F(RayLauncherTest, SaysWhatToPlaceAndHearsOfEachPart) {
  const auto launcher = start(R"(
read connect <&3
echo '{"type": "cluster", "address": "h:1", "head": "b", "nodes": [{"address": "a", "cpus": 1}, {"address": "b", "here": true}]}' >&3
read place <&3
echo "$place" > )" + (directory_ / "place").string() +
                                  R"(
echo '{"type": "placed", "rank": 1, "part": 2, "node": "a"}' >&3
echo '{"type": "lost", "rank": 1, "part": 2, "why": "its cable"}' >&3
echo '{"type": "failed", "rank": 0, "why": "no model"}' >&3
echo '{"type": "log", "text": "a word"}' >&3
echo '{"type": "error", "why": "enough"}' >&3
)",
                              30'000);
  ASSERT_NE(launcher, nullptr);
  const auto cluster = launcher->wait_for_cluster(30'000);
  ASSERT_TRUE(cluster.ok() && cluster->has_value());
  EXPECT_EQ((*cluster)->nodes.at(0).address, "b") << "this machine is first";
  EXPECT_FALSE((*cluster)->all_here());

  ASSERT_TRUE(launcher->place({{0, {{"a", {"x", "y"}}}}, {1, {{"", {"p"}}, {"", {"q"}}}}}, 3, "no key").ok());
  const std::vector<RayEvent> events = events_of(launcher.get());
  ASSERT_EQ(events.size(), 5U);
  EXPECT_EQ(events[0].kind, RayEvent::Kind::placed);
  EXPECT_EQ(events[0].rank, 1);
  EXPECT_EQ(events[0].part, 2);
  EXPECT_EQ(events[0].text, "a");
  EXPECT_EQ(events[1].kind, RayEvent::Kind::lost);
  EXPECT_EQ(events[1].part, 2);
  EXPECT_EQ(events[2].kind, RayEvent::Kind::failed);
  EXPECT_EQ(events[2].part, 0);
  EXPECT_EQ(events[3].text, "a word");
  EXPECT_EQ(events[4].text, "enough");

  std::ifstream file(directory_ / "place");
  const Json place = Json::parse(file, nullptr, false);
  EXPECT_EQ(place, Json::parse(R"({"type": "place", "resources": {"CPU": 3}, "only_here": "no key", "ranks": [
      {"rank": 0, "parts": [{"node": "a", "command": ["x", "y"]}]},
      {"rank": 1, "parts": [{"node": "", "command": ["p"]}, {"node": "", "command": ["q"]}]}]})"));
}

TEST_F(RayLauncherTest, OneThatDoesNotReadIsAnError) {
  const std::filesystem::path end = directory_ / "end";
  const auto launcher = start("while [ ! -e " + end.string() + " ]; do sleep 0.02; done\n", 200);
  ASSERT_NE(launcher, nullptr);
  const auto placed = launcher->place({{0, {{"", {std::string(4 << 20, 'x')}}}}}, 1, "");
  EXPECT_THAT(placed.ok() ? "" : placed.error().message, HasSubstr("chorus-ray does not read"));
  EXPECT_TRUE(launcher->take().empty());
  std::ofstream(end) << "";
}

TEST_F(RayLauncherTest, OneThatEndsSaysHow) {
  expect_end("exit 7\n", "exited with status 7");
}

TEST_F(RayLauncherTest, OneThatTheDynamicLinkerRefusesSaysWhatToInstall) {
  expect_end("exit 127\n", "install the package ray-cpp");
}

}  // namespace
}  // namespace chorus
