#include "json/member.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace chorus {
namespace {

TEST(Member, IsNullWhereThereIsNone) {
  const Json object = {{"a", 1}};
  EXPECT_EQ(member(object, "a"), 1);
  EXPECT_TRUE(member(object, "b").is_null());
  for (const Json& other : {Json(nullptr), Json("a"), Json::array({"a"}), Json(1)}) {
    EXPECT_TRUE(member(other, "a").is_null()) << other;
  }
}

}  // namespace
}  // namespace chorus
