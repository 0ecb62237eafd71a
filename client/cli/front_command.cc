#include "client/cli/front_command.h"

#include <arpa/inet.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/errors.h"
#include "base/replace_file.h"
#include "client/cli/certificates.h"
#include "client/cli/connection_file.h"
#include "client/cli/descriptors.h"
#include "client/cli/files.h"
#include "client/cli/front_files.h"
#include "client/cli/keys.h"
#include "client/cli/tokens.h"
#include "client/cli/user_commands.h"

namespace backboned::cli {
namespace {

constexpr absl::Duration kRenewBefore = absl::Hours(24 * 30);
constexpr size_t kMaxSocketPath = sizeof(sockaddr_un::sun_path) - 1;

bool IsOf(int family, const std::string& address) {
  unsigned char bytes[16];
  return inet_pton(family, address.c_str(), bytes) == 1;
}

// Reads IP:port or [IP]:port.
absl::Status ReadAddress(const std::string& text, FrontConfig& config) {
  const size_t colon = text.rfind(':');
  std::string host = text.substr(0, colon);
  const bool in_brackets =
      absl::StartsWith(host, "[") && absl::EndsWith(host, "]");
  if (in_brackets) host = host.substr(1, host.size() - 2);
  const bool is_valid =
      colon != std::string::npos &&
      IsOf(in_brackets ? AF_INET6 : AF_INET, host) &&
      absl::SimpleAtoi(text.substr(colon + 1), &config.port) &&
      config.port > 0 && config.port < 65'536;
  config.host = host;
  if (is_valid) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--address ", Quote(text),
                   " is no IP address of this machine and port, "
                   "such as 0.0.0.0:8443, 192.0.2.1:8443 or [::]:8443"));
}

// Reads unix:/path; an error says what a port would do.
absl::Status ReadSocket(const std::string& option, const std::string& text,
                        const std::string& port, std::string& path) {
  path = text.substr(std::min(text.size(), std::strlen("unix:")));
  if (!absl::StartsWith(text, "unix:/")) {
    return absl::InvalidArgumentError(
        absl::StrCat(option, " ", Quote(text),
                     " is no Unix socket, unix:/path; a port would ", port));
  }
  if (path.size() <= kMaxSocketPath) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(option, " ", text, ": a socket's path has at most ",
                   kMaxSocketPath, " bytes"));
}

// Returns the name by which clients reach the front.
absl::StatusOr<std::string> NameFor(const FrontOptions& options,
                                    const FrontConfig& config) {
  if (options.name.empty()) {
    if (config.host != "0.0.0.0" && config.host != "::") return config.host;
    return absl::InvalidArgumentError(absl::StrCat(
        "--address ", options.address,
        " is every address of this machine; --name says by which DNS name or "
        "IP address clients reach it"));
  }
  const auto is_of_name = [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '-' || c == '.';
  };
  if (IsIp(options.name) || (options.name.size() < 254 &&
                             std::ranges::all_of(options.name, is_of_name))) {
    return options.name;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--name ", Quote(options.name),
                   " is neither a DNS name nor an IP "
                   "address"));
}

absl::Status MakeFolder(const std::string& folder) {
  if (mkdir(folder.c_str(), 0700) == 0 ||
      std::filesystem::is_directory(folder)) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "cannot make the folder ", folder, ": ", std::strerror(errno)));
}

// Writes the files of one front.
class Front {
 public:
  explicit Front(const FrontOptions& options) : options_(options) {}

  absl::Status Write();

 private:
  std::string Path(const std::string& name) const {
    return absl::StrCat(config_.folder, "/", name);
  }

  // Writes a file of the folder, and says so if it was not there like this.
  absl::Status Put(const std::string& name, const std::string& text,
                   mode_t mode);

  absl::Status ReadOptions();

  // Reads a file that an option names, if it names one.
  absl::Status ReadFile(const std::string& option, const std::string& path,
                        std::string& text);
  absl::Status ReadFiles();

  // Write certificate.json, by the certificate that is given, or by one of a CA
  // of our own, which `ca_` is then.
  absl::Status WriteCertificate();
  absl::Status WriteOwnCertificate();

  const FrontOptions& options_;
  FrontConfig config_;
  std::string name_;
  // The contents of the files that options name.
  std::string chain_;
  std::string key_;
  std::string client_cas_;
  std::string crl_;
  // The CA of our own, if the front has no other certificate.
  std::string ca_;
  bool is_new_ = false;
};

absl::Status Front::Put(const std::string& name, const std::string& text,
                        mode_t mode) {
  const absl::StatusOr<bool> changed = WriteText(Path(name), text, mode);
  if (!changed.ok()) return changed.status();
  if (*changed) std::cout << "wrote " << Path(name) << "\n";
  if (*changed && name == "envoy.yaml") is_new_ = true;
  return absl::OkStatus();
}

absl::Status Front::ReadOptions() {
  absl::Status read = ReadAddress(options_.address, config_);
  if (!read.ok()) return read;
  read = ReadSocket("--server", options_.server, "let others name principals",
                    config_.socket);
  if (!read.ok()) return read;
  absl::StatusOr<std::string> name = NameFor(options_, config_);
  if (!name.ok()) return name.status();
  name_ = *std::move(name);
  if (options_.certificate.empty() != options_.key.empty()) {
    return absl::InvalidArgumentError(
        "--certificate and --key belong together: give both, or neither");
  }
  if (!options_.crl.empty() && options_.client_ca.empty()) {
    return absl::InvalidArgumentError(
        "--crl needs --client-ca, whose certificates it revokes");
  }
  config_.folder = std::filesystem::absolute(options_.out).lexically_normal();
  if (config_.folder.size() > 1 && config_.folder.back() == '/') {
    config_.folder.pop_back();
  }
  const std::string admin = options_.admin.empty()
                                ? absl::StrCat("unix:", Path("admin.sock"))
                                : options_.admin;
  read = ReadSocket("--admin", admin, "let others end Envoy", config_.admin);
  if (!read.ok()) return read;
  config_.max_connections = options_.max_connections;
  config_.certificates = !options_.client_ca.empty();
  config_.json = options_.json;
  return absl::OkStatus();
}

absl::Status Front::ReadFile(const std::string& option, const std::string& path,
                             std::string& text) {
  if (path.empty()) return absl::OkStatus();
  absl::StatusOr<std::string> read = ReadText(path);
  if (!read.ok()) return PrefixMessage(option, read.status());
  text = *std::move(read);
  return absl::OkStatus();
}

absl::Status Front::ReadFiles() {
  for (const absl::Status& read :
       {ReadFile("--certificate", options_.certificate, chain_),
        ReadFile("--key", options_.key, key_),
        ReadFile("--client-ca", options_.client_ca, client_cas_),
        ReadFile("--crl", options_.crl, crl_)}) {
    if (!read.ok()) return read;
  }
  for (const absl::Status& valid :
       {options_.certificate.empty() ? absl::OkStatus()
                                     : CheckPair(chain_, key_),
        options_.client_ca.empty() ? absl::OkStatus()
                                   : CheckCas("--client-ca", client_cas_),
        options_.crl.empty() ? absl::OkStatus() : CheckCrl(crl_)}) {
    if (!valid.ok()) return valid;
  }
  return absl::OkStatus();
}

absl::Status Front::WriteOwnCertificate() {
  const absl::StatusOr<Key> ca_key = ReadOrMakeKey(Path("ca.key"));
  if (!ca_key.ok()) return ca_key.status();
  const absl::StatusOr<Key> key = ReadOrMakeKey(Path("server.key"));
  if (!key.ok()) return key.status();
  const absl::Time renewal = absl::Now() + kRenewBefore;
  const auto old_ca = ReadText(Path("ca.pem"));
  const bool is_ours =
      old_ca.ok() && IsValidAt(*old_ca, renewal) && HasKey(*old_ca, *ca_key);
  ca_ = is_ours ? *old_ca : MakeCa(*ca_key);
  absl::Status written = Put("ca.pem", ca_, kPublic);
  if (!written.ok()) return written;
  const auto old = ReadText(Path("server.pem"));
  const bool is_valid =
      old.ok() && IsValidAt(*old, renewal) && Fits(*old, *key, name_, ca_);
  const std::string certificate =
      is_valid ? *old : MakeServerCertificate(*key, name_, ca_, *ca_key);
  written = Put("server.pem", certificate, kPublic);
  if (!written.ok()) return written;
  const absl::StatusOr<std::string> key_text = ReadText(Path("server.key"));
  if (!key_text.ok()) return key_text.status();
  return Put("certificate.json", CertificateJson(certificate, *key_text),
             kPrivate);
}

absl::Status Front::WriteCertificate() {
  if (options_.certificate.empty()) return WriteOwnCertificate();
  return Put("certificate.json", CertificateJson(chain_, key_), kPrivate);
}

absl::Status Front::Write() {
  absl::Status done = ReadOptions();
  if (!done.ok()) return done;
  done = ReadFiles();
  if (!done.ok()) return done;
  const absl::StatusOr<Key> key = ReadOrMakeKey(options_.signing_key);
  if (!key.ok()) return key.status();
  done = MakeFolder(config_.folder);
  if (!done.ok()) return done;
  const auto lock = FolderLock::OfFile(Path("envoy.yaml"));
  if (!lock.ok()) return lock.status();
  done = WriteCertificate();
  if (!done.ok()) return done;
  if (config_.certificates) {
    done = Put("clients.json", ClientsJson(client_cas_, crl_), kPublic);
  }
  if (!done.ok()) return done;
  done = Put("tokens.json", TokensJson(KeySetOf(*key)), kPublic);
  if (!done.ok()) return done;
  if (config_.json) done = Put("contract.pb", UnaryContract(), kPublic);
  if (!done.ok()) return done;
  const bool is_ipv6 = IsOf(AF_INET6, name_);
  const std::string target = absl::StrCat(
      is_ipv6 ? "[" : "", name_, is_ipv6 ? "]" : "", ":", config_.port);
  done = Put("connection.yaml", Format({.target = target, .ca = ca_}), kPublic);
  if (!done.ok()) return done;
  done = Put("envoy.yaml", EnvoyYaml(config_), kPublic);
  if (!done.ok()) return done;
  std::cout << (is_new_ ? "now (re)start it: envoy -c "
                        : "a running Envoy reads by itself what changed: ")
            << Path("envoy.yaml") << "\n";
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteFront(const FrontOptions& options) {
  return Front(options).Write();
}

void AddFrontCommand(CommandLine& line) {
  const auto users = std::make_shared<std::string>(DefaultUsersFile());
  const auto front = std::make_shared<FrontOptions>();
  CLI::App* const command = line.Add(
      "front",
      "Writes the configuration of an Envoy that stands before a server, asks "
      "for tokens or certificates, and says who calls",
      [=] {
        front->signing_key = SigningKeyOf(*users, front->signing_key);
        return WriteFront(*front);
      });
  AddUsersFile(command, *users);
  const auto add = [command](const std::string& name, std::string& value,
                             const std::string& type, const std::string& help) {
    return command->add_option(name, value, help)
        ->capture_default_str()
        ->type_name(type);
  };
  add("--out", front->out, "DIR", "The folder to write");
  add("--address", front->address, "IP:PORT", "Where the front listens")
      ->required();
  add("--server", front->server, "unix:/PATH", "The socket of the server");
  add("--admin", front->admin, "unix:/PATH",
      "The socket of Envoy's admin interface; else admin.sock in --out");
  add("--name", front->name, "NAME",
      "DNS name or IP address by which clients reach the front; else that of "
      "--address");
  add("--certificate", front->certificate, "FILE",
      "The front's certificate and its chain, PEM; else one of a CA of its "
      "own");
  add("--key", front->key, "FILE", "The certificate's key, PEM");
  add("--client-ca", front->client_ca, "FILE",
      "CAs, PEM, whose certificates let clients in, by their one DNS name");
  add("--crl", front->crl, "FILE", "Those of them that are revoked, PEM");
  add("--signing-key", front->signing_key, "FILE",
      "The key that signs tokens; else signing-key.pem beside the users file");
  command
      ->add_option("--max-connections", front->max_connections,
                   "Most connections of clients at once")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  command->add_flag("--json", front->json,
                    "Takes unary methods as JSON, too: POST "
                    "/backboned.v1.BackboneService/Extract");
}

}  // namespace backboned::cli
