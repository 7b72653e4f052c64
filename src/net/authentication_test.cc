#include "net/authentication.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

namespace chorus {
namespace {

std::string hex(const std::string& bytes) {
  std::string text;
  for (const char byte : bytes) text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return text;
}

TEST(Hmac, GivesTheVectorsOfRfc4231) {
  Hmac first(std::string(20, '\x0b'));
  EXPECT_EQ(hex(first.tag({"Hi There"})), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  Hmac second("Jefe");
  const char* expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
  EXPECT_EQ(hex(second.tag({"what do ya want ", "for nothing?"})), expected);
  EXPECT_EQ(hex(second.tag({"what do ya want for nothing?"})), expected) << "a second message under the same key";
}

TEST(Sha256, GivesTheVectorOfFips180) {
  EXPECT_EQ(sha256_hex({"a", "bc"}), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(RandomBytes, AreNotTheSameTwice) {
  EXPECT_EQ(random_bytes(32).size(), 32U);
  EXPECT_NE(random_bytes(32), random_bytes(32));
}

class KeyFile : public testing::Test {
 protected:
  std::string write(std::size_t bytes, mode_t mode) {
    const std::string path = testing::TempDir() + "/cluster-key";
    ::unlink(path.c_str());
    std::ofstream(path) << std::string(bytes, 'k');
    EXPECT_EQ(::chmod(path.c_str(), mode), 0);
    return path;
  }
  static std::string refusal(const std::string& path) {
    const auto key = ClusterKey::read(path);
    return key.ok() ? "accepted" : key.error().message;
  }
};

TEST_F(KeyFile, IsReadByteForByte) {
  const auto key = ClusterKey::read(write(cluster_key_bytes_min, 0600));
  ASSERT_TRUE(key.ok()) << key.error().message;
  EXPECT_EQ((*key)->bytes(), std::string(cluster_key_bytes_min, 'k'));
  EXPECT_EQ(refusal(write(cluster_key_bytes_max, 0400)), "accepted");
}

TEST_F(KeyFile, OfAWrongLengthIsRefusedWithTheBounds) {
  EXPECT_NE(refusal(write(cluster_key_bytes_min - 1, 0600)).find("has 31 bytes, 32 to 4096 are accepted"),
            std::string::npos);
  EXPECT_NE(refusal(write(cluster_key_bytes_max + 1, 0600)).find("too many bytes"), std::string::npos);
}

TEST_F(KeyFile, ThatOthersMayUseIsRefused) {
  for (const mode_t mode : {0640, 0604, 0620, 0610, 0601}) {
    EXPECT_NE(refusal(write(64, mode)).find("chmod 600"), std::string::npos) << mode;
  }
}

TEST_F(KeyFile, ThatIsNoFileIsRefused) {
  EXPECT_NE(refusal("/nowhere/key").find("openssl rand"), std::string::npos);
  EXPECT_NE(refusal("/dev/zero").find("no regular file"), std::string::npos);
}

}  // namespace
}  // namespace chorus
