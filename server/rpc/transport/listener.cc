#include "server/rpc/transport/listener.h"

#include <fcntl.h>
#include <grp.h>
#include <grpc/grpc_security_constants.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <set>
#include <span>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/errors.h"
#include "base/names.h"
#include "base/principals.h"

namespace backboned::rpc {
namespace {

// The key of the metadata by which fronts name principals, and of the property
// of a connection by which its listener does. Connections of accounts and of
// fronts have another one instead.
constexpr char kPrincipalKey[] = "backboned-principal";
constexpr char kAccountProperty[] = "backboned-account";
constexpr char kFrontProperty[] = "backboned-front";

// Fronts tell of a caller's token by these.
constexpr char kTokenSerialKey[] = "backboned-token-serial";
constexpr char kTokenExpiresKey[] = "backboned-token-expires";

// gRPC's property that tells the kind of a listener's credentials, and its
// value for LocalServerCredentials.
constexpr char kSecurityProperty[] = GRPC_TRANSPORT_SECURITY_TYPE_PROPERTY_NAME;
constexpr char kLocalSecurity[] = "local";

// Where Linux keeps a file's ACL.
constexpr char kAclName[] = "system.posix_acl_access";

constexpr mode_t kOwnersMode = 0700;

const std::vector<std::string>& OptionNames() {
  static const auto* names = new std::vector<std::string>(
      {"group", "mode", "principal", "principal-from", "serve", "user"});
  return *names;
}

// Returns whether a part of a text of --listen is an option of the address
// before it.
bool IsOption(std::string_view part) {
  const size_t equals = part.find('=');
  const std::string_view name = part.substr(0, equals);
  return equals != std::string_view::npos && !name.empty() &&
         name.find_first_of(":/") == std::string_view::npos;
}

absl::Status SetPrincipal(const std::string& value, Listener& listener) {
  listener.principal = value;
  if (value == kLocalPrincipal) return absl::OkStatus();
  return CheckPrincipal(value);
}

absl::Status SetSource(const std::string& value, Listener& listener) {
  listener.is_front = value == kPrincipalKey;
  listener.by_account = value == "account";
  if (listener.is_front || listener.by_account) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("it is account or ", kPrincipalKey));
}

absl::Status SetService(const std::string& value, Listener& listener) {
  listener.is_admin = value == "admin";
  if (listener.is_admin) return absl::OkStatus();
  return absl::InvalidArgumentError("it is admin");
}

absl::Status SetUser(const std::string& value, Listener& listener) {
  const passwd* const account = getpwnam(value.c_str());
  if (account == nullptr) {
    return absl::InvalidArgumentError("there is no such account");
  }
  listener.user = account->pw_uid;
  return absl::OkStatus();
}

absl::Status SetGroup(const std::string& value, Listener& listener) {
  const ::group* const found = getgrnam(value.c_str());
  if (found == nullptr) {
    return absl::InvalidArgumentError("there is no such group");
  }
  listener.group = found->gr_gid;
  return absl::OkStatus();
}

absl::Status SetMode(const std::string& value, Listener& listener) {
  char* end = nullptr;
  const unsigned long mode = std::strtoul(value.c_str(), &end, /*base=*/8);
  listener.mode = static_cast<mode_t>(mode);
  const bool is_octal = !value.empty() && value.find_first_not_of("01234567") ==
                                              std::string::npos;
  if (is_octal && mode <= 0777) return absl::OkStatus();
  return absl::InvalidArgumentError("a mode is octal, such as 0660");
}

absl::Status SetOption(const std::string& name, const std::string& value,
                       Listener& listener) {
  if (name == "principal") return SetPrincipal(value, listener);
  if (name == "principal-from") return SetSource(value, listener);
  if (name == "serve") return SetService(value, listener);
  if (name == "user") return SetUser(value, listener);
  if (name == "group") return SetGroup(value, listener);
  if (name == "mode") return SetMode(value, listener);
  return absl::InvalidArgumentError(
      absl::StrCat("there is no such option; did you mean ",
                   NearestName(name, OptionNames()), "?"));
}

// Reads an option of a listener whose address is known.
absl::Status ReadOption(const std::string& part, Listener& listener,
                        std::set<std::string>& given) {
  const std::pair<std::string, std::string> option =
      absl::StrSplit(part, absl::MaxSplits('=', 1));
  absl::Status set = SetOption(option.first, option.second, listener);
  if (set.ok() && !given.insert(option.first).second) {
    set = absl::InvalidArgumentError("the option is there twice");
  }
  if (set.ok() && !listener.address.is_unix() && option.first != "serve") {
    set = absl::InvalidArgumentError(
        "only a Unix socket, unix:/path, has options, but for serve");
  }
  if (set.ok() && (listener.is_front || listener.by_account) &&
      !listener.principal.empty()) {
    set = absl::InvalidArgumentError(
        "a socket has principal or principal-from, not both");
  }
  if (set.ok()) return set;
  return absl::InvalidArgumentError(
      absl::StrCat(listener.address.text, ": ", part, ": ", set.message()));
}

// Returns kInvalidArgument if a listener lets others in, and says not who they
// are: they would be admins; or if it says so where nobody calls.
absl::Status CheckNamesPrincipal(const Listener& listener) {
  const bool admits = listener.user || listener.group || listener.mode;
  const bool names =
      listener.is_front || listener.by_account || !listener.principal.empty();
  if (names && listener.is_admin) {
    return absl::InvalidArgumentError(
        absl::StrCat(listener.address.text,
                     ": a listener with serve=admin takes no calls, so it has "
                     "neither principal nor principal-from"));
  }
  if (!admits || names || listener.is_admin) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      listener.address.text,
      ": user, group and mode need principal or principal-from: who calls "
      "there? (principal=local is an admin)"));
}

// An entry of an ACL. `id` is that of an account or group, if `tag` has one.
posix_acl_xattr_entry Entry(uint16_t tag, mode_t permissions,
                            uint32_t id = ACL_UNDEFINED_ID) {
  return {.e_tag = tag,
          .e_perm = static_cast<uint16_t>(permissions & 7),
          .e_id = id};
}

// Lets an account and a group write to a socket: that is, connect. Entries are
// in the order that Linux wants.
absl::Status SetAcl(const Listener& listener, mode_t mode) {
  constexpr mode_t kUse = 6;
  std::vector<posix_acl_xattr_entry> entries = {Entry(ACL_USER_OBJ, mode >> 6)};
  if (listener.user) entries.push_back(Entry(ACL_USER, kUse, *listener.user));
  entries.push_back(Entry(ACL_GROUP_OBJ, mode >> 3));
  if (listener.group) {
    entries.push_back(Entry(ACL_GROUP, kUse, *listener.group));
  }
  entries.push_back(Entry(ACL_MASK, (mode >> 3) | kUse));
  entries.push_back(Entry(ACL_OTHER, mode));
  const posix_acl_xattr_header header = {.a_version = POSIX_ACL_XATTR_VERSION};
  const auto bytes = std::as_bytes(std::span(entries));
  std::vector<std::byte> acl(sizeof(header) + bytes.size());
  std::memcpy(acl.data(), &header, sizeof(header));
  std::memcpy(acl.data() + sizeof(header), bytes.data(), bytes.size());
  if (lsetxattr(listener.address.path.c_str(), kAclName, acl.data(), acl.size(),
                0) == 0) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat("cannot let others connect to ", listener.address.text,
                   " by an ACL: ", std::strerror(errno)));
}

absl::Status IdentityRefused(std::string_view message) {
  return Error(absl::StatusCode::kUnauthenticated, Reason::kIdentityRefused,
               message);
}

// Reads a number above 0 that a front may tell.
absl::StatusOr<std::optional<int64_t>> ReadNumber(
    const grpc::ServerContext& context, const char* key) {
  const auto [first, last] = context.client_metadata().equal_range(key);
  if (first == last) return std::nullopt;
  int64_t number = 0;
  const bool is_number = absl::SimpleAtoi(
      absl::string_view(first->second.data(), first->second.size()), &number);
  if (std::next(first) == last && is_number && number > 0) return number;
  return IdentityRefused(absl::StrCat(
      "metadata ", key, " of the front is not one number above 0"));
}

// Returns whom a front names.
absl::StatusOr<Identity> IdentityByFront(const grpc::ServerContext& context) {
  const auto [first, last] =
      context.client_metadata().equal_range(kPrincipalKey);
  const auto count = std::distance(first, last);
  if (count != 1) {
    return IdentityRefused(
        absl::StrCat("the front names ", count == 0 ? "no" : "several",
                     " callers in metadata ", kPrincipalKey));
  }
  Identity identity = {
      .name = std::string(first->second.data(), first->second.size())};
  const absl::Status valid = CheckPrincipal(identity.name);
  if (!valid.ok()) {
    return IdentityRefused(
        absl::StrCat("metadata ", kPrincipalKey, ": ", valid.message()));
  }
  const absl::StatusOr<std::optional<int64_t>> serial =
      ReadNumber(context, kTokenSerialKey);
  const absl::StatusOr<std::optional<int64_t>> expires =
      ReadNumber(context, kTokenExpiresKey);
  if (!serial.ok()) return serial.status();
  if (!expires.ok()) return expires.status();
  identity.token = *serial;
  if (*expires) identity.expires = absl::FromUnixSeconds(**expires);
  return identity;
}

}  // namespace

absl::StatusOr<std::vector<Listener>> ParseListeners(
    const std::vector<std::string>& texts) {
  std::vector<Listener> listeners;
  for (const std::string& text : texts) {
    const std::vector<std::string> parts = absl::StrSplit(text, ',');
    std::set<std::string> given;  // Options of the last address.
    for (const std::string& part : parts) {
      if (IsOption(part) && &part != &parts.front()) {
        absl::Status read = ReadOption(part, listeners.back(), given);
        if (!read.ok()) return read;
        continue;
      }
      absl::StatusOr<ListenAddress> address = ParseListenAddress(part);
      if (!address.ok()) return address.status();
      listeners.push_back({.address = *std::move(address)});
      given.clear();
    }
  }
  for (const Listener& listener : listeners) {
    absl::Status named = CheckNamesPrincipal(listener);
    if (!named.ok()) return named;
  }
  if (!listeners.empty() &&
      std::ranges::all_of(listeners, &Listener::is_admin)) {
    return absl::InvalidArgumentError(
        "has addresses with serve=admin only: a server needs one for calls");
  }
  return listeners;
}

std::shared_ptr<grpc::ServerCredentials> CredentialsOf(
    const Listener& listener) {
  if (!listener.is_front && listener.principal.empty()) {
    return grpc::InsecureServerCredentials();
  }
  auto announcer = std::make_shared<Announcer>();
  if (listener.is_front) {
    announcer->SetFront();
  } else {
    announcer->SetIdentity({.name = listener.principal});
  }
  return CredentialsOf(std::move(announcer));
}

std::shared_ptr<grpc::ServerCredentials> CredentialsOf(
    std::shared_ptr<Announcer> announcer) {
  std::shared_ptr<grpc::ServerCredentials> credentials =
      grpc::experimental::LocalServerCredentials(UDS);
  credentials->SetAuthMetadataProcessor(std::move(announcer));
  return credentials;
}

void Announcer::SetIdentity(const Identity& identity) {
  absl::MutexLock lock(&mutex_);
  property_ = identity.is_account ? kAccountProperty : kPrincipalKey;
  value_ = identity.name;
}

void Announcer::SetFront() {
  absl::MutexLock lock(&mutex_);
  property_ = kFrontProperty;
  value_ = "yes";
}

grpc::Status Announcer::Process(const InputMetadata&,
                                grpc::AuthContext* context, OutputMetadata*,
                                OutputMetadata*) {
  absl::MutexLock lock(&mutex_);
  if (context->FindPropertyValues(property_).empty()) {
    context->AddProperty(property_, value_);
  }
  return grpc::Status::OK;
}

absl::Status Admit(const Listener& listener) {
  if (!listener.address.is_unix()) return absl::OkStatus();
  const char* const path = listener.address.path.c_str();
  const mode_t mode = listener.mode.value_or(kOwnersMode);
  // Always: a folder's default ACL counts more than the umask.
  if (fchmodat(AT_FDCWD, path, mode, AT_SYMLINK_NOFOLLOW) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot set the mode of ", listener.address.text, ": ",
                     std::strerror(errno)));
  }
  if (!listener.user && !listener.group) return absl::OkStatus();
  return SetAcl(listener, mode);
}

absl::StatusOr<Identity> IdentityOf(const grpc::ServerContext& context) {
  const std::shared_ptr<const grpc::AuthContext> connection =
      context.auth_context();
  if (!connection->FindPropertyValues(kFrontProperty).empty()) {
    return IdentityByFront(context);
  }
  if (context.client_metadata().contains(kPrincipalKey)) {
    return IdentityRefused(absl::StrCat("metadata ", kPrincipalKey,
                                        " is for the server's front alone"));
  }
  for (const char* property : {kPrincipalKey, kAccountProperty}) {
    for (const grpc::string_ref& name :
         connection->FindPropertyValues(property)) {
      return Identity{.name = std::string(name.data(), name.size()),
                      .is_account = property == kAccountProperty};
    }
  }
  // LocalServerCredentials are those with an announcer.
  for (const grpc::string_ref& security :
       connection->FindPropertyValues(kSecurityProperty)) {
    if (security == kLocalSecurity) {
      return IdentityRefused("the connection has no principal");
    }
  }
  return Identity{.name = std::string(kLocalPrincipal)};
}

}  // namespace backboned::rpc
