#include "fleet/poll_set.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <optional>

namespace chorus {
namespace {

bool is_readable(int fd) {
  pollfd item{fd, POLLIN, 0};
  return ::poll(&item, 1, 0) == 1;
}

struct Pipe {
  Pipe() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe(ends.data()), 0);
    out = UniqueFd(ends[0]);
    in = UniqueFd(ends[1]);
  }
  UniqueFd out, in;
};

TEST(PollSet, IsReadableWhenOneOfThemIs) {
  PollSet set;
  Pipe one, two;
  set.update(std::array{pollfd{one.out.get(), POLLIN, 0}, pollfd{-1, POLLIN, 0}, pollfd{two.out.get(), POLLIN, 0}});
  EXPECT_FALSE(is_readable(set.fd()));
  ASSERT_EQ(::write(two.in.get(), "x", 1), 1);
  EXPECT_TRUE(is_readable(set.fd()));
  // Not one of them any more; again, and wanted for writing, which it cannot be.
  set.update(std::array{pollfd{one.out.get(), POLLIN, 0}});
  EXPECT_FALSE(is_readable(set.fd()));
  set.update(std::array{pollfd{one.out.get(), POLLIN, 0}, pollfd{one.in.get(), POLLOUT, 0}});
  EXPECT_TRUE(is_readable(set.fd()));
}

TEST(PollSet, ADescriptorThatWasClosedMayHaveItsNumberAgain) {
  PollSet set;
  std::optional<Pipe> first(std::in_place);
  const int number = first->out.get();
  set.update(std::array{pollfd{number, POLLIN, 0}});
  first.reset();
  Pipe second;
  ASSERT_EQ(second.out.get(), number);
  set.update(std::array{pollfd{number, POLLIN, 0}});
  EXPECT_FALSE(is_readable(set.fd()));
  ASSERT_EQ(::write(second.in.get(), "x", 1), 1);
  EXPECT_TRUE(is_readable(set.fd()));
}

}  // namespace
}  // namespace chorus
