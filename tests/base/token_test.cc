#include "base/token.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace backboned {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct Owner {
  void GiveBack(const std::string& right) { returned.push_back(right); }
  std::vector<std::string> returned;
};
using OwnersToken = Token<Owner, std::string>;

TEST(TokenTest, GivesBackAtItsEnd) {
  Owner owner;
  {
    const OwnersToken token(&owner, "a");
    EXPECT_EQ(token.owner(), &owner);
    EXPECT_EQ(token.right(), "a");
    EXPECT_THAT(owner.returned, IsEmpty());
  }
  EXPECT_THAT(owner.returned, ElementsAre("a"));
}

TEST(TokenTest, GivesBackOnceWhenItIsReleased) {
  Owner owner;
  {
    OwnersToken token(&owner, "a");
    token.Release();
    EXPECT_THAT(owner.returned, ElementsAre("a"));
    EXPECT_EQ(token.owner(), nullptr);
    token.Release();
  }
  EXPECT_THAT(owner.returned, ElementsAre("a"));
}

TEST(TokenTest, AnEmptyOneGivesNothingBack) {
  OwnersToken token;
  token.Release();
  EXPECT_EQ(token.owner(), nullptr);
}

TEST(TokenTest, GivesBackWhatItHeldWhenItIsReplaced) {
  Owner owner;
  OwnersToken token(&owner, "a");
  OwnersToken other(&owner, "b");
  token = std::move(other);
  EXPECT_THAT(owner.returned, ElementsAre("a"));
  EXPECT_EQ(other.owner(), nullptr);
  token = OwnersToken();
  EXPECT_THAT(owner.returned, ElementsAre("a", "b"));
}

TEST(TokenTest, TheLastOfThoseThatItMovedThroughGivesBack) {
  Owner owner;
  {
    OwnersToken first(&owner, "a");
    OwnersToken& same = first;
    first = std::move(same);
    const OwnersToken second = std::move(first);
    EXPECT_THAT(owner.returned, IsEmpty());
  }
  EXPECT_THAT(owner.returned, ElementsAre("a"));
}

TEST(TokenTest, DoesNotGiveBackWhatWasTaken) {
  Owner owner;
  {
    OwnersToken token(&owner, "a");
    EXPECT_EQ(token.Take(), "a");
    EXPECT_EQ(token.owner(), nullptr);
  }
  EXPECT_THAT(owner.returned, IsEmpty());
}

}  // namespace
}  // namespace backboned
