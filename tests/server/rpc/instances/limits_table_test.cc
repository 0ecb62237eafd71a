// The table of limits: each row is an option, and most are told by GetServer.

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "absl/strings/str_replace.h"
#include "backboned/v1/instance_service.pb.h"
#include "server/limits/limits.h"

namespace backboned {
namespace {

TEST(LimitTableTest, NamesEachLimitOnce) {
  std::set<std::string> names;
  for (const LimitRow& row : LimitTable()) {
    EXPECT_TRUE(names.insert(row.name).second) << row.name;
    EXPECT_NE(std::string(row.help), "");
    EXPECT_EQ(row.kind == LimitRow::Kind::kTime, row.value.index() == 1);
  }
}

// Everything that GetServer tells of limits is a row, but for the wire's own
// and the caller's parts.
TEST(LimitTableTest, HasWhatGetServerTells) {
  std::set<std::string> rows = {"max_message_bytes", "max_chunk_bytes",
                                "session_quota", "principal_quota"};
  for (const LimitRow& row : LimitTable()) {
    rows.insert(absl::StrReplaceAll(row.name, {{"-", "_"}}));
  }
  const google::protobuf::Descriptor& told = *v1::Limits::descriptor();
  for (int i = 0; i < told.field_count(); ++i) {
    EXPECT_THAT(rows, testing::Contains(told.field(i)->name()));
  }
}

}  // namespace
}  // namespace backboned
