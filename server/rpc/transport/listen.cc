#include "server/rpc/transport/listen.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/descriptor.h"
#include "base/errors.h"

namespace backboned::rpc {
namespace {

using AddressList = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

absl::StatusOr<AddressList> Resolve(const ListenAddress& address) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* list = nullptr;
  const int failed =
      getaddrinfo(address.host.c_str(), address.port.c_str(), &hints, &list);
  if (failed != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "cannot resolve ", Quote(address.host), ": ", gai_strerror(failed)));
  }
  return AddressList(list, &freeaddrinfo);
}

bool IsLoopback(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    sockaddr_in ipv4;
    std::memcpy(&ipv4, &address, sizeof(ipv4));
    return (ntohl(ipv4.sin_addr.s_addr) >> 24) == 127;
  }
  sockaddr_in6 ipv6;
  std::memcpy(&ipv6, &address, sizeof(ipv6));
  return IN6_IS_ADDR_LOOPBACK(&ipv6.sin6_addr);
}

absl::Status InUse(const ListenAddress& address) {
  return absl::UnavailableError(absl::StrCat("cannot listen on ", address.text,
                                             ": another server listens there"));
}

// Binds a socket for a moment, to learn why gRPC could not.
absl::Status ProbeTcp(const ListenAddress& address) {
  absl::StatusOr<AddressList> list = Resolve(address);
  if (!list.ok()) return list.status();
  for (const addrinfo* info = list->get(); info != nullptr;
       info = info->ai_next) {
    const Descriptor probe(
        socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (probe.get() < 0)
      continue;  // An address family that this machine lacks.
    const int reuse =
        1;  // As gRPC does: a socket in TIME_WAIT is not a server.
    setsockopt(probe.get(), SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse));
    if (bind(probe.get(), info->ai_addr, info->ai_addrlen) == 0) continue;
    if (errno == EADDRINUSE) return InUse(address);
    return absl::InvalidArgumentError(absl::StrCat(
        "cannot listen on ", address.text, ": ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

// Opens and locks the file `path`.lock. The lock's holder owns the socket.
absl::StatusOr<Descriptor> LockBeside(const ListenAddress& address) {
  const std::string path = absl::StrCat(address.path, ".lock");
  while (true) {
    Descriptor file(
        open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (file.get() < 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "cannot listen on ", address.text, ": ", std::strerror(errno)));
    }
    if (flock(file.get(), LOCK_EX | LOCK_NB) != 0) return InUse(address);
    // Between open and lock the last holder may have removed the file.
    struct stat held = {};
    struct stat named = {};
    if (fstat(file.get(), &held) == 0 && stat(path.c_str(), &named) == 0 &&
        held.st_ino == named.st_ino) {
      return file;
    }
  }
}

// Removes a socket that no process serves.
absl::Status RemoveStale(const ListenAddress& address) {
  struct stat found = {};
  if (lstat(address.path.c_str(), &found) != 0) return absl::OkStatus();
  if (!S_ISSOCK(found.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot listen on ", address.text,
                     ": a file that is not a socket exists there"));
  }
  const sockaddr_un target = UnixAddress(address.path);
  const Descriptor probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (connect(probe.get(), reinterpret_cast<const sockaddr*>(&target),
              sizeof(target)) == 0) {
    return InUse(address);
  }
  if (errno != ECONNREFUSED) {  // It may be served, though not to us.
    return absl::InvalidArgumentError(
        absl::StrCat("cannot listen on ", address.text,
                     ": a socket exists there: ", std::strerror(errno)));
  }
  unlink(address.path.c_str());
  return absl::OkStatus();
}

absl::Status CannotListen(const ListenAddress& address) {
  return absl::InvalidArgumentError(absl::StrCat(
      "cannot listen on ", address.text, ": ", std::strerror(errno)));
}

absl::StatusOr<Descriptor> ListenOnUnix(const ListenAddress& address) {
  Descriptor listener(
      socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const sockaddr_un bound = UnixAddress(address.path);
  if (listener.get() < 0 || fchmod(listener.get(), 0700) != 0 ||
      bind(listener.get(), reinterpret_cast<const sockaddr*>(&bound),
           sizeof(bound)) != 0 ||
      listen(listener.get(), SOMAXCONN) != 0) {
    return CannotListen(address);
  }
  return listener;
}

// The port is at the same place in an IPv4 and in an IPv6 address.
static_assert(offsetof(sockaddr_in, sin_port) ==
              offsetof(sockaddr_in6, sin6_port));

// Returns the port that a socket has.
in_port_t PortOf(const Descriptor& bound) {
  sockaddr_in6 name = {};
  socklen_t size = sizeof(name);
  getsockname(bound.get(), reinterpret_cast<sockaddr*>(&name), &size);
  return ntohs(name.sin6_port);
}

void SetPort(in_port_t port, const addrinfo& info) {
  port = htons(port);
  std::memcpy(
      reinterpret_cast<char*>(info.ai_addr) + offsetof(sockaddr_in, sin_port),
      &port, sizeof(port));
}

absl::StatusOr<Descriptor> ListenOnTcp(const ListenAddress& address,
                                       const addrinfo& info) {
  Descriptor listener(
      socket(info.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (listener.get() < 0) return CannotListen(address);
  const int yes = 1;
  setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  if (info.ai_family == AF_INET6) {
    setsockopt(listener.get(), IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof(yes));
  }
  if (bind(listener.get(), info.ai_addr, info.ai_addrlen) != 0 ||
      listen(listener.get(), SOMAXCONN) != 0) {
    return CannotListen(address);
  }
  return listener;
}

absl::StatusOr<ListenAddress> ParseTcp(std::string_view text) {
  ListenAddress address{.text = std::string(text)};
  const size_t colon = text.rfind(':');
  const absl::Status malformed = absl::InvalidArgumentError(absl::StrCat(
      "address ", Quote(address.text), " is neither unix:/path nor host:port"));
  if (colon == std::string_view::npos || colon == 0) return malformed;
  address.host = std::string(text.substr(0, colon));
  address.port = std::string(text.substr(colon + 1));
  if (address.host.size() > 2 && address.host.front() == '[' &&
      address.host.back() == ']') {
    address.host = address.host.substr(1, address.host.size() - 2);
  }
  int port = 0;
  if (!absl::SimpleAtoi(address.port, &port) || port < 0 || port > 65535)
    return malformed;
  return address;
}

}  // namespace

absl::StatusOr<ListenAddress> ParseListenAddress(std::string_view text) {
  constexpr std::string_view kUnix = "unix:";
  if (!text.starts_with(kUnix)) return ParseTcp(text);
  ListenAddress address;
  std::string_view path = text.substr(kUnix.size());
  if (path.starts_with("//")) path.remove_prefix(2);
  address.path = std::string(path);
  address.text = absl::StrCat("unix:", address.path);
  if (address.path.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("address ", Quote(text), " has no path"));
  }
  if (address.path.size() >= sizeof(sockaddr_un::sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the socket's path has ", address.path.size(), " characters, at most ",
        sizeof(sockaddr_un::sun_path) - 1, " are allowed: ", address.path));
  }
  return address;
}

sockaddr_un UnixAddress(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  return address;
}

absl::Status CheckLocal(const ListenAddress& address) {
  if (address.is_unix()) return absl::OkStatus();
  absl::StatusOr<AddressList> list = Resolve(address);
  if (!list.ok()) return list.status();
  for (const addrinfo* info = list->get(); info != nullptr;
       info = info->ai_next) {
    if (IsLoopback(*info->ai_addr)) continue;
    return absl::FailedPreconditionError(absl::StrCat(
        "refusing to listen on ", address.text,
        ": it can be reached from other machines without authentication or "
        "encryption; set --insecure-remote to allow that"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Descriptor>> ListenOn(ListenAddress& address) {
  std::vector<Descriptor> listeners;
  if (address.is_unix()) {
    absl::StatusOr<Descriptor> listener = ListenOnUnix(address);
    if (!listener.ok()) return listener.status();
    listeners.push_back(*std::move(listener));
    return listeners;
  }
  const absl::StatusOr<AddressList> list = Resolve(address);
  if (!list.ok()) return list.status();
  absl::Status failed;
  in_port_t chosen = 0;  // In place of 0; the same for all addresses.
  for (const addrinfo* info = list->get(); info != nullptr;
       info = info->ai_next) {
    if (chosen != 0) SetPort(chosen, *info);
    absl::StatusOr<Descriptor> listener = ListenOnTcp(address, *info);
    if (!listener.ok()) {
      failed = listener.status();  // A family that this machine lacks.
      continue;
    }
    if (address.port == "0") {
      chosen = PortOf(*listener);
      address.port = absl::StrCat(chosen);
      address.text = absl::StrCat(
          address.text.substr(0, address.text.size() - 1), address.port);
    }
    listeners.push_back(*std::move(listener));
  }
  if (listeners.empty()) return failed;
  return listeners;
}

absl::StatusOr<AddressClaim> AddressClaim::Make(const ListenAddress& address) {
  if (!address.is_unix()) {
    absl::Status free = ProbeTcp(address);
    if (!free.ok()) return free;
    return AddressClaim("", -1);
  }
  absl::StatusOr<Descriptor> lock = LockBeside(address);
  if (!lock.ok()) return lock.status();
  absl::Status removed = RemoveStale(address);
  if (!removed.ok()) {
    unlink(absl::StrCat(address.path, ".lock").c_str());
    return removed;
  }
  return AddressClaim(address.path, lock->Release());
}

AddressClaim::AddressClaim(AddressClaim&& other) noexcept
    : path_(std::move(other.path_)), lock_(std::exchange(other.lock_, -1)) {}

AddressClaim::~AddressClaim() {
  if (lock_ < 0) return;
  unlink(path_.c_str());
  unlink(absl::StrCat(path_, ".lock").c_str());
  close(lock_);
}

}  // namespace backboned::rpc
