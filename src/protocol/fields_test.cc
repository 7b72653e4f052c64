// Goal: no member of anything that crosses the wire is forgotten. Method: the values are made without their lists of
// fields (testing/sample_value.h), each differs from the first in one member, and each arrives as it was sent.
#include "base/fields.h"

#include <gtest/gtest.h>

#include "net/archive.h"
#include "protocol/messages.h"
#include "testing/sample_value.h"

namespace chorus {
namespace {

template <typename T>
class Fields : public testing::Test {};

using Values = testing::Types<SamplingParams, TokenLogprob, PositionLogprobs, ChoiceState, Request, TokenEvent,
                              EngineLoad, RopeConfig, ModelConfig, ParallelConfig, EngineConfig, HelloMessage,
                              EngineStart, WorkerStart, ReadyMessage, AbortMessage, JoinMessage, LoadMessage,
                              ClientMessage, PrefixCacheResetMessage, WaveMessage, WelcomeMessage, ContactMessage,
                              WorldMessage, FatalMessage, NewsMessage, ClientNote, ReplicaFaultMessage>;
TYPED_TEST_SUITE(Fields, Values);

TYPED_TEST(Fields, EachCrossesTheWire) {
  const auto sent = sample_value<TypeParam>(3);
  const auto changed = samples_with_one_change<TypeParam>(3);
  ASSERT_GT(changed.size(), 0U);
  for (std::size_t i = 0; i < changed.size(); ++i) {
    ASSERT_FALSE(changed[i] == sent) << "member " << i << " was not changed";
    const std::string payload = archive::encode_value(changed[i]);
    EXPECT_NE(payload, archive::encode_value(sent)) << "member " << i << " is not sent";
    const auto received = archive::decode_value<TypeParam>(payload, "a value");
    ASSERT_TRUE(received.ok()) << received.error().message;
    EXPECT_TRUE(*received == changed[i]) << "member " << i << " arrives as another value";
  }
}

// A decoder leaves nothing as it was: what it is given may hold an earlier message.
TYPED_TEST(Fields, EachIsOverwrittenByADecoder) {
  const auto sent = sample_value<TypeParam>(4);
  const std::string payload = archive::encode_value(sent);
  auto received = sample_value<TypeParam>(5);
  archive::Decoder decoder(payload);
  visit(decoder, received);
  ASSERT_TRUE(decoder.wire.finish().ok());
  EXPECT_TRUE(received == sent);
}

TEST(MemberCount, CountsWithoutAList) {
  struct Inner {
    int a = 1;
    bool operator==(const Inner&) const = default;
  };
  struct Outer {
    Inner inner;
    std::vector<bool> flags;
    std::optional<std::string> text;
    double number = 0;
  };
  EXPECT_EQ(member_count<Inner>(), 1U);
  EXPECT_EQ(member_count<Outer>(), 4U);
}

}  // namespace
}  // namespace chorus
