#include "weights/arena.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <numeric>

namespace chorus {
namespace {

using ::testing::HasSubstr;

constexpr std::size_t arena_bytes = 3 * 4096 + 17;

WeightArena filled_arena() {
  WeightArena arena = WeightArena::create(arena_bytes).value();
  for (std::size_t i = 0; i < arena_bytes; ++i) arena.writable_data()[i] = static_cast<std::byte>(i * 7);
  return arena;
}

bool holds_pattern(const WeightArena& arena) {
  for (std::size_t i = 0; i < arena.size(); ++i) {
    if (arena.data()[i] != static_cast<std::byte>(i * 7)) return false;
  }
  return arena.size() == arena_bytes;
}

TEST(WeightArena, StartsZeroAndKeepsWhatIsWrittenThroughTheSeal) {
  WeightArena arena = WeightArena::create(arena_bytes).value();
  for (std::size_t i = 0; i < arena_bytes; ++i) ASSERT_EQ(arena.data()[i], std::byte{0});
  arena = filled_arena();
  ASSERT_TRUE(arena.seal().ok());
  EXPECT_TRUE(holds_pattern(arena));
}

TEST(WeightArena, ASealedOneCannotBeChangedByAnyMeans) {
  WeightArena arena = filled_arena();
  ASSERT_TRUE(arena.seal().ok());
  EXPECT_EQ(::pwrite(arena.fd(), "x", 1, 0), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(::ftruncate(arena.fd(), 1), -1);
  EXPECT_EQ(::ftruncate(arena.fd(), 1 << 20), -1);
  EXPECT_EQ(::fcntl(arena.fd(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE), -1);
  EXPECT_EQ(::mmap(nullptr, arena_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, arena.fd(), 0), MAP_FAILED);
  EXPECT_NE(::mprotect(const_cast<std::byte*>(arena.data()), arena_bytes, PROT_READ | PROT_WRITE), 0);
  EXPECT_TRUE(holds_pattern(arena));
}

TEST(WeightArenaDeathTest, WritingToASealedOneEndsTheProcess) {
  WeightArena arena = filled_arena();
  ASSERT_TRUE(arena.seal().ok());
  EXPECT_DEATH(arena.writable_data(), "read-only");
  EXPECT_DEATH(const_cast<volatile std::byte&>(arena.data()[0]) = std::byte{1}, "");
}

TEST(WeightArena, OpenRefusesWhatItsMakerCouldStillChange) {
  const WeightArena unsealed = filled_arena();
  const auto opened = WeightArena::open(::dup(unsealed.fd()));
  ASSERT_FALSE(opened.ok());
  EXPECT_THAT(opened.error().message, HasSubstr("not sealed"));

  const int half = ::memfd_create("half", MFD_ALLOW_SEALING);
  ASSERT_EQ(::ftruncate(half, 4096), 0);
  ASSERT_EQ(::fcntl(half, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
  EXPECT_FALSE(WeightArena::open(half).ok());
  EXPECT_EQ(::fcntl(half, F_GETFD), -1) << "open() owns the descriptor on failure too";

  EXPECT_FALSE(WeightArena::open(::open("/dev/zero", O_RDONLY)).ok());
  EXPECT_FALSE(WeightArena::open(-1).ok());
}

TEST(WeightArena, RefusesNothingAndMoreThanThereIs) {
  EXPECT_FALSE(WeightArena::create(0).ok());
  const auto huge = WeightArena::create(std::size_t{1} << 50);
  ASSERT_FALSE(huge.ok());
  EXPECT_EQ(huge.error().code, ErrorCode::resource_exhausted);
  EXPECT_THAT(huge.error().message, HasSubstr("1125899906842624"));
}

TEST(WeightArena, MovesAndClosesItsDescriptorOnce) {
  WeightArena arena = filled_arena();
  const int fd = arena.fd();
  WeightArena moved = std::move(arena);
  EXPECT_EQ(arena.data(), nullptr);  // NOLINT: the moved-from state is what is tested
  EXPECT_TRUE(holds_pattern(moved));
  moved = WeightArena();
  EXPECT_EQ(::fcntl(fd, F_GETFD), -1);
}

void send_descriptor(int socket, int fd) {
  char byte = 0;
  iovec data{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &fd, sizeof(int));
  ASSERT_EQ(::sendmsg(socket, &message, 0), 1);
}

int receive_descriptor(int socket) {
  char byte = 0;
  iovec data{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  if (::recvmsg(socket, &message, 0) != 1) return -1;
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
  return fd;
}

TEST(WeightArena, AnotherProcessReadsItThroughAPassedDescriptor) {
  int sockets[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const auto opened = WeightArena::open(receive_descriptor(sockets[1]));
    ::_exit(opened.ok() && holds_pattern(*opened) ? 0 : 1);
  }
  {
    WeightArena arena = filled_arena();
    ASSERT_TRUE(arena.seal().ok());
    send_descriptor(sockets[0], arena.fd());
  }  // the child's copy outlives the maker's
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  ::close(sockets[0]);
  ::close(sockets[1]);
}

}  // namespace
}  // namespace chorus
