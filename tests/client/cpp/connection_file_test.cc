#include "client/cpp/connection_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "client/cpp/connect.h"
#include "tests/client/cpp/certificates.h"
#include "tests/client/cpp/fake_server.h"
#include "tests/testing/status_matchers.h"

namespace backboned::client {
namespace {

using ::absl::StatusCode;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Pair;

class ConnectionFileTest : public testing::Test {
 protected:
  ConnectionFileTest()
      : folder_(testing::TempDir() + "/connection_file_test-" +
                std::to_string(getpid())) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~ConnectionFileTest() override {
    std::filesystem::remove_all(folder_);
    for (const char* name :
         {"BACKBONED_SERVER", "BACKBONED_CONNECTION", "XDG_CONFIG_HOME"}) {
      unsetenv(name);
    }
  }

  std::string Write(const std::string& name, const std::string& text) {
    const std::filesystem::path path = folder_ / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
    return path;
  }

  // Reads a connection file of this text.
  absl::StatusOr<ConnectionFile> Read(const std::string& text) {
    return ReadConnectionFile(Write("c.yaml", text));
  }

  const std::filesystem::path folder_;
  const Authority authority_;
};

// Returns the text of a value that has several lines.
std::string Block(const std::string& pem) {
  return absl::StrCat("|\n  ", absl::StrReplaceAll(pem, {{"\n", "\n  "}}),
                      "\n");
}

TEST_F(ConnectionFileTest, PemsAreTextOrPathsFromTheFilesFolder) {
  const Identity own = authority_.Issue();
  Write("pki/ca.pem", authority_.certificate());
  Write("pki/key.pem", own.key);
  const auto read = Read(absl::StrCat(
      "target: host:1\nca: pki/ca.pem\nkey: pki/key.pem\ncertificate: ",
      Block(own.certificate), "token: 0123\n"));
  ASSERT_THAT(read, IsOk());
  EXPECT_EQ(read->target, "host:1");
  EXPECT_EQ(read->credentials.ca, authority_.certificate());
  EXPECT_EQ(read->credentials.certificate, own.certificate);
  EXPECT_EQ(read->credentials.key, own.key);
  EXPECT_THAT(read->credentials.token(), IsOkAndHolds("0123"));
}

TEST_F(ConnectionFileTest, ATokensFileIsReadEachTime) {
  const auto read = Read("{target: 'unix:/b', token-file: token}");
  ASSERT_THAT(read, IsOk());
  EXPECT_THAT(read->credentials.token(),
              StatusIs(kInvalid, HasSubstr((folder_ / "token").string())));
  Write("token", "first\n");
  EXPECT_THAT(read->credentials.token(), IsOkAndHolds("first"));
  Write("token", "second");
  EXPECT_THAT(read->credentials.token(), IsOkAndHolds("second"));
}

TEST_F(ConnectionFileTest, EachMistakeIsASentenceWithTheFile) {
  const std::string path = folder_ / "c.yaml";
  for (const auto& [text, sentence] : {
           std::pair("", "is no map of keys; a connection file has target, ca"),
           std::pair("target", "is no map of keys"),
           std::pair("target: [", "is no YAML: "),
           std::pair("ca: x", "there is no target; a connection file has"),
           std::pair("target: host:1\nports: 2",
                     "there is no key 'ports'; a connection file has target"),
           std::pair("[1]: 2", "there is no key ''"),
           std::pair("target: [host]", "target is no text"),
           std::pair("target:", "target is no text"),
           std::pair("target: host:1\nca: /nowhere/ca.pem",
                     "ca /nowhere/ca.pem cannot be read: No such file"),
           std::pair("target: host:1\nca: c.yaml", "the CA is no certificate"),
           std::pair("target: unix:/b\ntoken: x\ntoken-file: y",
                     "there are a token and a token-file; one is allowed"),
       }) {
    EXPECT_THAT(Read(text),
                StatusIs(kInvalid, AllOf(HasSubstr(path), HasSubstr(sentence))))
        << text;
  }
}

TEST_F(ConnectionFileTest, AFileThatIsNotThereIsWaitedFor) {
  const std::string path = folder_ / "ready.yaml";
  EXPECT_THAT(ReadConnectionFile(path),
              StatusIs(StatusCode::kUnavailable,
                       absl::StrCat("there is no connection file ", path)));
  EXPECT_THAT(ReadConnectionFile(path, absl::Milliseconds(100)),
              StatusIs(StatusCode::kUnavailable, HasSubstr("waited 100ms")));
  std::thread writer([&] {
    absl::SleepFor(absl::Milliseconds(200));
    const std::string whole = Write("new", "target: host:1");
    std::filesystem::rename(whole, path);
  });
  EXPECT_THAT(ReadConnectionFile(path, absl::Seconds(20)), IsOk());
  writer.join();
}

TEST_F(ConnectionFileTest, AClientConnectsByIt) {
  FakeServer server(authority_.Serve());
  Write("ca.pem", authority_.certificate());
  const std::string path =
      Write("c.yaml", absl::StrCat("target: ", server.target(),
                                   "\nca: ca.pem\ntoken: secret\n"));
  const auto client = ConnectByFile(path);
  ASSERT_THAT(client, IsOk());
  ASSERT_THAT(client->GetServer(), IsOk());
  EXPECT_THAT(server.instances.metadata,
              Contains(Pair("authorization", "Bearer secret")));
}

TEST_F(ConnectionFileTest, TheEnvironmentNamesTheServer) {
  FakeServer server;
  setenv("XDG_CONFIG_HOME", folder_.c_str(), 1);
  EXPECT_THAT(ConnectByDefault(),
              StatusIs(kInvalid, HasSubstr("no server is named: set ")));
  Write("backboned/connection.yaml", absl::StrCat("target: ", server.target()));
  EXPECT_THAT(ConnectByDefault(), IsOk());
  setenv("BACKBONED_CONNECTION", "/nowhere/c.yaml", 1);
  EXPECT_THAT(ConnectByDefault(),
              StatusIs(StatusCode::kUnavailable, HasSubstr("/nowhere/c.yaml")));
  setenv("BACKBONED_SERVER", server.target().c_str(), 1);
  EXPECT_THAT(ConnectByDefault(), IsOk());
}

}  // namespace
}  // namespace backboned::client
