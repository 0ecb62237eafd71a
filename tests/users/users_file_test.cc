#include "users/users_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

absl::Time At(const std::string& text) {
  absl::Time time;
  EXPECT_TRUE(absl::ParseTime(absl::RFC3339_full, text, &time, nullptr));
  return time;
}

const Users& SomeUsers() {
  static const auto* users =
      new Users{{"alice",
                 {.rights = Rights::kAdmin,
                  .share = 2,
                  .quota = 0.25,
                  .account = "amiller",
                  .token = 3,
                  .expires = At("2027-03-31T12:00:00Z")}},
                {"bob", {}},
                {"carol", {.rights = Rights::kInfer}}};
  return *users;
}

TEST(ParseUsersTest, ReadsAllFields) {
  EXPECT_THAT(ParseUsers("# The lab's.\n"
                         "users:\n"
                         "  alice: {rights: admin, share: 2, quota: 0.25,\n"
                         "          account: amiller, token: 3,\n"
                         "          expires: '2027-03-31T12:00:00Z'}\n"
                         "  bob:\n"
                         "  carol:\n"
                         "    rights: infer\n"),
              IsOkAndHolds(SomeUsers()));
  EXPECT_THAT(ParseUsers("users:"), IsOkAndHolds(IsEmpty()));
  EXPECT_THAT(ParseUsers("users: {}"), IsOkAndHolds(IsEmpty()));
}

TEST(ParseUsersTest, ADayIsTheLastOne) {
  const auto users = ParseUsers("users: {ann: {expires: 2027-12-31}}");
  ASSERT_THAT(users, IsOk());
  EXPECT_EQ(users->at("ann").expires, At("2028-01-01T00:00:00Z"));
}

TEST(ParseUsersTest, NamesTheMistakeAndItsLine) {
  const std::vector<std::pair<std::string, std::string>> mistakes = {
      {"", "has one key, `users`"},
      {"- a", "has one key, `users`"},
      {"user: {}", "has one key, `users`"},
      {"users: {}\nmore: 1", "has one key, `users`"},
      {"users: [alice]", "line 1: users: it has names as keys"},
      {"users:\n  Alice:", "line 2: name \"Alice\" does not match"},
      {"users:\n  local:", "line 2: \"local\" is the server's own word"},
      {"users:\n  [a]: {}", "line 2: a user's name is text"},
      {"users:\n  a:\n  b:\n  a:", "line 4: a is there twice"},
      {"users:\n  a: 3", "a: line 2: a user has fields, which are account"},
      {"users:\n  a:\n    right: train",
       "a: line 3: there is no \"right\"; did you mean rights?"},
      {"users:\n  a: {token: 1,\n token: 2}", "line 3: token is there twice"},
      {"users:\n  a: {rights: root}", "they are infer, train or admin"},
      {"users:\n  a: {rights: [train]}", "rights: this is none"},
      {"users:\n  a: {share: much}", "share: this is none"},
      {"users:\n  a: {share: 0}", "from 0.001 to 1000"},
      {"users:\n  a: {share: .nan}", "from 0.001 to 1000"},
      {"users:\n  a: {share: .inf}", "from 0.001 to 1000"},
      {"users:\n  a: {quota: 0}", "above 0 and at most 1"},
      {"users:\n  a: {quota: 1.1}", "above 0 and at most 1"},
      {"users:\n  a: {account: ''}", "it is the name of an account"},
      {"users:\n  a: {token: 0}", "a whole number above 0"},
      {"users:\n  a: {token: 1.5}", "token: this is none"},
      {"users:\n  a: {expires: tomorrow}", "\"tomorrow\" is no day, such as"},
      {"users:\n  a: {expires: 2027-13-01}", "is no day, such as 2027-03-31"},
      {"users:\n  a: {account: b}\n  b:", "account \"b\" is a's and b's"},
      {"users:\n  a: {", "line 2: "},
      {"users: *none", "line 1: "},
      {"users:\n\ta:", "line 2: "}};
  for (const auto& [text, message] : mistakes) {
    EXPECT_THAT(ParseUsers(text), StatusIs(kInvalid, HasSubstr(message)))
        << text;
  }
}

class UsersFileTest : public ::testing::Test {
 protected:
  ~UsersFileTest() override { std::filesystem::remove_all(folder_); }

  const std::string folder_ = [] {
    std::string pattern = ::testing::TempDir() + "users.XXXXXX";
    return std::string(mkdtemp(pattern.data()));
  }();
  const std::string path_ = folder_ + "/users.yaml";
};

TEST_F(UsersFileTest, ReadsWhatItWrote) {
  ASSERT_THAT(WriteUsers(path_, SomeUsers()), IsOk());
  EXPECT_THAT(ReadUsers(path_), IsOkAndHolds(SomeUsers()));
  ASSERT_THAT(WriteUsers(path_, {}), IsOk());
  EXPECT_THAT(ReadUsers(path_), IsOkAndHolds(IsEmpty()));
}

TEST_F(UsersFileTest, NamesAFileThatItCannotUse) {
  EXPECT_THAT(ReadUsers(path_), StatusIs(absl::StatusCode::kNotFound,
                                         HasSubstr("there is no such file")));
  EXPECT_THAT(
      ReadUsers(folder_),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(folder_)));
  EXPECT_THAT(WriteUsers(folder_ + "/none/users.yaml", {}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("No such file or directory")));
  std::ofstream(path_) << "users: 3";
  EXPECT_THAT(ReadUsers(path_),
              StatusIs(kInvalid, HasSubstr(path_ + ": line 1: users")));
  std::ofstream(path_) << std::string((1 << 20) + 1, '#');
  EXPECT_THAT(ReadUsers(path_), StatusIs(absl::StatusCode::kFailedPrecondition,
                                         HasSubstr("at most 1 MiB")));
}

}  // namespace
}  // namespace backboned
