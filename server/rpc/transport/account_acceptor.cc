#include "server/rpc/transport/account_acceptor.h"

#include <poll.h>
#include <pwd.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/principals.h"
#include "server/callers/directory.h"
#include "server/limits/catching.h"

namespace backboned::rpc {
namespace {

// Returns the kernel's number for accounts that a container does not know: not
// one, but all of them.
uid_t UnknownAccount() {
  uid_t number = 65534;
  std::ifstream("/proc/sys/kernel/overflowuid") >> number;
  return number;
}

// A pause after an error that the next attempt would meet, too: no descriptor
// is left. The connection waits in the socket's queue.
constexpr std::chrono::milliseconds kPause(100);

// Returns who an account is, or kInvalidArgument.
absl::StatusOr<Identity> IdentityOfAccount(uid_t account) {
  if (account == UnknownAccount()) {
    return absl::InvalidArgumentError("it may be any account");
  }
  if (account == 0 || account == geteuid()) {
    return Identity{.name = std::string(kLocalPrincipal)};
  }
  passwd entry = {};
  passwd* found = nullptr;
  std::vector<char> memory(size_t{1} << 20);
  const int error =
      getpwuid_r(account, &entry, memory.data(), memory.size(), &found);
  if (found == nullptr) {
    return absl::InvalidArgumentError(error == 0 ? "it has no name here"
                                                 : std::strerror(error));
  }
  return Identity{.name = found->pw_name, .is_account = true};
}

}  // namespace

AccountAcceptor::AccountAcceptor(grpc::ServerBuilder& builder)
    : end_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  using Type = grpc::ServerBuilder::experimental_type::ExternalConnectionType;
  doors_.reserve(kMostAccounts);
  while (doors_.size() < kMostAccounts) {
    auto announcer = std::make_shared<Announcer>();
    auto acceptor = builder.experimental().AddExternalConnectionAcceptor(
        Type::FROM_FD, CredentialsOf(announcer));
    doors_.push_back(
        {.announcer = std::move(announcer), .acceptor = std::move(acceptor)});
  }
}

AccountAcceptor::~AccountAcceptor() { End(); }

absl::Status AccountAcceptor::Listen(ListenAddress address) {
  if (end_.get() < 0) return absl::UnavailableError("no descriptor is left");
  absl::StatusOr<std::vector<Descriptor>> sockets = ListenOn(address);
  if (!sockets.ok()) return sockets.status();
  for (Descriptor& socket : *sockets) listeners_.push_back(std::move(socket));
  return absl::OkStatus();
}

void AccountAcceptor::Start() {
  thread_ = std::thread([this] { AcceptAll(); });
}

void AccountAcceptor::End() {
  if (!thread_.joinable()) return;
  eventfd_write(end_.get(), 1);
  thread_.join();
  listeners_.clear();
}

void AccountAcceptor::AcceptAll() {
  std::vector<pollfd> waits = {{.fd = end_.get(), .events = POLLIN}};
  for (const Descriptor& listener : listeners_) {
    waits.push_back({.fd = listener.get(), .events = POLLIN});
  }
  while (true) {
    poll(waits.data(), waits.size(), -1);
    if (waits.front().revents != 0) return;
    for (const pollfd& wait : waits) {
      if (wait.revents == 0) continue;
      RunCatching([&] {
        Accept(wait.fd);
        return absl::OkStatus();
      }).IgnoreError();
    }
  }
}

// Accepts a connection, if one is there.
void AccountAcceptor::Accept(int listener) {
  Descriptor connection(
      accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (connection.get() < 0) {
    if (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR) return;
    spdlog::warn("cannot accept a connection: {}", std::strerror(errno));
    std::this_thread::sleep_for(kPause);
    return;
  }
  ucred peer = {};
  socklen_t size = sizeof(peer);
  if (getsockopt(connection.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
    return;
  const absl::StatusOr<Door*> door = DoorOf(peer.uid);
  if (!door.ok()) {
    const std::string_view why(door.status().message().data(),
                               door.status().message().size());
    spdlog::warn("refused a connection of the account {}: {}", peer.uid, why);
    return;
  }
  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters
      parameters;
  parameters.listener_fd = listener;
  parameters.fd = connection.Release();
  (*door)->acceptor->HandleNewConnection(&parameters);
}

// Returns the door of an account under its name of now. It keeps that door.
absl::StatusOr<AccountAcceptor::Door*> AccountAcceptor::DoorOf(uid_t account) {
  const absl::StatusOr<Identity> identity = IdentityOfAccount(account);
  if (!identity.ok()) return identity.status();
  const std::pair key(account, identity->name);
  const auto known = accounts_.find(key);
  if (known != accounts_.end()) return known->second;
  if (accounts_.size() == kMostAccounts) {
    return absl::ResourceExhaustedError(
        absl::StrCat(kMostAccounts, " other accounts have connected"));
  }
  Door* const door = &doors_[accounts_.size()];
  door->announcer->SetIdentity(*identity);
  accounts_.emplace(key, door);
  return door;
}

}  // namespace backboned::rpc
