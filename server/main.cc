// Runs the server: options, environment, signals.

#include <google/protobuf/stubs/logging.h>
#include <malloc.h>
#include <pthread.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "base/errors.h"
#include "base/principals.h"
#include "server/admin/admin_server.h"
#include "server/callers/audit.h"
#include "server/checkpoints/checkpoint_store.h"
#include "server/device/devices.h"
#include "server/device/graph_cache.h"
#include "server/device/platform.h"
#include "server/device/precision.h"
#include "server/instances/weights_folder.h"
#include "server/limits/catching.h"
#include "server/memory/memory_allocator.h"
#include "server/memory/memory_room.h"
#include "server/process/config_file.h"
#include "server/process/followed_users.h"
#include "server/process/log.h"
#include "server/process/options.h"
#include "server/process/parent.h"
#include "server/process/ready_file.h"
#include "server/process/reloaded_options.h"
#include "server/rpc/checkpoints/recovery.h"
#include "server/rpc/rpc_server.h"
#include "server/rpc/standard/health_check.h"
#include "server/rpc/transport/listener.h"
#include "server/server.h"
#include "server/usage/usage_log.h"
#include "users/users_file.h"

namespace backboned {
namespace {

// The variable that says that ApplyOmpWait is done: the parent as of then.
constexpr char kOmpWaitApplied[] = "BACKBONED_OMP_WAIT_APPLIED";

// Sets libgomp's environment and starts this program once more, since libgomp
// reads it before `main`, when it is loaded.
void ApplyOmpWait(const Options& options, char** argv) {
  if (std::getenv(kOmpWaitApplied) != nullptr) return;
  setenv(kOmpWaitApplied, absl::StrCat(getppid()).c_str(), /*overwrite=*/1);
  if (options.omp_wait == "active") {
    setenv("OMP_WAIT_POLICY", "ACTIVE", /*overwrite=*/1);
  } else if (options.omp_wait == "passive") {
    setenv("OMP_WAIT_POLICY", "PASSIVE", /*overwrite=*/1);
  } else if (std::getenv("OMP_WAIT_POLICY") == nullptr) {
    // Spin for some 0.13 ms: long enough for the next operator, too short to
    // take a core from the client for long. Figures: docs/performance.md.
    setenv("GOMP_SPINCOUNT", "10000", /*overwrite=*/0);
  }
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return;
  execv(program.c_str(), argv);  // Returns only if it failed: go on without.
}

// Sets up the process; called before any thread starts.
void PrepareProcess(const Options& options) {
  std::signal(SIGPIPE, SIG_IGN);
  umask(0077);  // A Unix socket is for its owner only.
  rlimit files = {};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  // It would print a line for each malformed string from a client.
  google::protobuf::SetLogHandler(nullptr);
  OpenLog(options.log_level);
  // Debian's Abseil looks for deadlocks at each lock, which costs more than the
  // lock itself.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  // gRPC's receive buffers come from malloc, which would give their memory back
  // after each message, and fault it in again for the next.
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 64 << 20);
  MemoryRoom& memory = CpuMemory();  // The place of CPU tensors from now on.
  if (options.limits.max_memory_bytes > 0)
    memory.SetLimit(options.limits.max_memory_bytes);
}

// A worker tells with it that its device is lost.
constexpr int kDeviceLost = SIGUSR1;

// The process that started this one has ended.
constexpr int kParentEnded = SIGUSR2;

// Blocks the signals that the server waits for in every thread, and returns
// them.
sigset_t BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, kDeviceLost);
  sigaddset(&signals, kParentEnded);
  sigaddset(&signals, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

// Reads BENCHMARK[=NAME][@WEIGHTS].
CreateOptions ReadInstanceOption(const std::string& option) {
  const size_t at = option.find('@');
  const std::string named = option.substr(0, at);
  const size_t equals = named.find('=');
  const std::string benchmark = named.substr(0, equals);
  CreateOptions options = {.name = equals == std::string::npos
                                       ? benchmark
                                       : named.substr(equals + 1),
                           .owner = std::string(kServerPrincipal),
                           .benchmark = benchmark,
                           .beginning = Drawn{.seed = 0}};
  options.caller.principal = options.owner;
  if (at != std::string::npos) {
    options.beginning =
        Loaded{.weights = {.name = option.substr(at + 1)}, .rest = {.seed = 0}};
  }
  return options;
}

// Makes the instance of one --instance option, which the errors name, unless it
// is among those that came back from the state folder.
absl::Status HostInstance(Server& server, const std::string& option,
                          bool may_be_there) {
  const absl::Status status = RunCatching([&] {
    CreateOptions instance = ReadInstanceOption(option);
    const auto there = server.registry().Get(instance.owner, instance.name);
    if (may_be_there && there != nullptr) {
      const std::string& benchmark = there->identity().benchmark;
      if (benchmark == instance.benchmark) return absl::OkStatus();
      return absl::FailedPreconditionError(absl::StrCat(
          "--state-dir has an instance of this name and of ",
          benchmark.empty() ? "no benchmark" : "benchmark " + benchmark,
          "; give the new one another name: BENCHMARK=NAME"));
    }
    instance.caller.account = server.accounts().Of({instance.owner});
    return BlockOn(server.CreateInstance(instance)).status();
  });
  if (status.ok()) return status;
  const bool required = ReasonOf(status) == Reason::kWeightsRequired;
  return Error(status.code(), ReasonOf(status).value_or(Reason::kInvalidOption),
               absl::StrCat("--instance ", option, ": ", status.message(),
                            required ? "; with --instance, add @WEIGHTS" : ""));
}

rpc::Recovery::Options RecoveryOf(const Options& options) {
  return {.interval = options.save_interval,
          .versions = options.save_versions,
          .idle_ttl = options.limits.idle_ttl,
          .checkpoint_ttl = options.limits.checkpoint_ttl};
}

// Warns of shares and quotas of principals that no listener lets in.
void WarnOfAbsentPrincipals(const Options& options,
                            const std::vector<rpc::Listener>& listeners) {
  std::set<std::string> named;
  for (const auto& numbers :
       {options.shares, options.limits.quotas.principals}) {
    for (const auto& [principal, number] : numbers.All()) {
      named.insert(principal);
    }
  }
  named.erase(std::string(kLocalPrincipal));
  for (const rpc::Listener& listener : listeners) {
    if (listener.is_front || listener.by_account) return;  // Anybody may come.
    named.erase(listener.principal);
  }
  for (const std::string& principal : named) {
    spdlog::warn(
        "--share and --quota of {} have no effect: no --listen has "
        "principal={}",
        principal, principal);
  }
}

// Warns if principals that shall not touch each other's instances, or users,
// can all be the local one, too.
void WarnOfOpenDoor(const Options& options,
                    const std::vector<rpc::Listener>& listeners) {
  const auto names_principals = [](const rpc::Listener& listener) {
    return listener.is_front || listener.by_account ||
           !listener.principal.empty();
  };
  if (options.users.empty() &&
      !std::ranges::any_of(listeners, names_principals)) {
    return;
  }
  for (const rpc::Listener& listener : listeners) {
    if (listener.address.is_unix()) continue;
    spdlog::warn(
        "everybody who reaches {} is the principal {}, an admin; listen on "
        "Unix sockets only, if principals are to be apart",
        listener.address.text, kLocalPrincipal);
  }
}

// Takes the listeners that take no calls away from the others.
std::vector<rpc::Listener> TakeAdminListeners(
    std::vector<rpc::Listener>& listeners) {
  const auto admins = std::ranges::stable_partition(
      listeners, [](const auto& each) { return !each.is_admin; });
  std::vector<rpc::Listener> taken(admins.begin(), admins.end());
  listeners.erase(admins.begin(), admins.end());
  return taken;
}

std::string ServingLine(const Server& server, const rpc::RpcServer& rpc_server,
                        const admin::AdminServer& admin_server) {
  std::vector<std::string> devices;
  for (const DeviceWorker* worker : server.workers()) {
    devices.push_back(worker->device().str());
  }
  const std::vector<std::string>& admins = admin_server.addresses();
  return absl::StrCat("backboned ", Version(), " serving on ",
                      absl::StrJoin(rpc_server.addresses(), ", "), " (",
                      absl::StrJoin(devices, ", "), ", ",
                      server.workers().front()->threads(), " threads)",
                      admins.empty() ? "" : ", admin on ",
                      absl::StrJoin(admins, ", "));
}

// Does what the options ask for if there is a GPU: pins the host's memory, by
// the first one's context, and opens the library of graphs. Returns
// kFailedPrecondition if there is none.
absl::Status PrepareForGpus(const Options& options,
                            const std::vector<c10::Device>& devices) {
  const auto gpu = std::ranges::find_if(
      devices, [](const c10::Device& device) { return !device.is_cpu(); });
  if (gpu == devices.end()) return absl::OkStatus();
  if (options.pinned_bytes > 0) {
    CpuMemory().PinBlocks(
        {.pin = [gpu = *gpu](
                    void* memory,
                    size_t bytes) { return PinHostMemory(gpu, memory, bytes); },
         .unpin = [gpu = *gpu](void* memory) { UnpinHostMemory(gpu, memory); },
         .max_bytes = options.pinned_bytes});
  }
  return options.graph_bytes > 0 ? GraphCache::Load() : absl::OkStatus();
}

// Waits for a signal that ends the server. Until then follows the users file,
// if there is one, ends what its changes, and the time, forbid, and calls
// `reload` at SIGHUP.
int AwaitEnd(rpc::RpcServer& rpc_server, FollowedUsers* users,
             const std::function<void()>& reload, const sigset_t& signals) {
  while (true) {
    int signal = 0;
    if (users == nullptr) {
      sigwait(&signals, &signal);
    } else {
      constexpr timespec kPause = {.tv_sec = 1, .tv_nsec = 0};
      signal = sigtimedwait(&signals, nullptr, &kPause);
    }
    if (signal > 0 && signal != SIGHUP) return signal;
    if (signal == SIGHUP) reload();
    if (users == nullptr) continue;
    users->Follow(/*anyway=*/signal == SIGHUP);
    rpc_server.RecheckCallers();
  }
}

// Serves until a signal, then drains; a second SIGTERM or SIGINT ends the
// process at once.
void ServeUntilSignal(rpc::RpcServer& rpc_server, const Options& options,
                      FollowedUsers* users, const std::function<void()>& reload,
                      const sigset_t& signals) {
  const int signal = AwaitEnd(rpc_server, users, reload, signals);
  spdlog::info("draining signal={} timeout={}",
               signal == SIGTERM        ? "SIGTERM"
               : signal == SIGINT       ? "SIGINT"
               : signal == kParentEnded ? "PARENT_ENDED"
                                        : "DEVICE_LOST",
               absl::FormatDuration(options.limits.drain_timeout));
  sigset_t impatient = signals;
  // These may come while it drains.
  for (const int other : {kDeviceLost, kParentEnded, SIGHUP}) {
    sigdelset(&impatient, other);
  }
  pthread_sigmask(SIG_UNBLOCK, &impatient, nullptr);
  rpc_server.Drain(options.limits.drain_timeout);
}

absl::Status Serve(const Options& options, std::vector<rpc::Listener> listeners,
                   int argc, char** argv) {
  const std::vector<rpc::Listener> admin_listeners =
      TakeAdminListeners(listeners);
  const sigset_t signals = BlockSignals();
  if (options.die_with_parent) {
    pid_t parent = getppid();
    if (const char* const first = std::getenv(kOmpWaitApplied)) {
      (void)absl::SimpleAtoi(first, &parent);
    }
    absl::Status watched = SignalParentsEnd(parent, kParentEnded);
    if (!watched.ok()) return PrefixMessage("--die-with-parent", watched);
  }
  if (options.deterministic) ComputeDeterministically();
  absl::StatusOr<std::vector<c10::Device>> devices =
      OpenDevices(options.devices);
  if (!devices.ok()) return devices.status();
  absl::Status prepared = PrepareForGpus(options, *devices);
  if (!prepared.ok()) return prepared;
  absl::StatusOr<WeightsFolder> weights = WeightsFolder();
  if (!options.weights_dir.empty()) {
    weights = WeightsFolder::Open(options.weights_dir);
  }
  if (!weights.ok()) return weights.status();
  absl::StatusOr<std::unique_ptr<CheckpointStore>> checkpoints = nullptr;
  if (!options.state_dir.empty()) {
    checkpoints = CheckpointStore::Open(
        options.state_dir, {.max_bytes = options.limits.max_checkpoint_bytes,
                            .quotas = options.limits.quotas});
  }
  if (!checkpoints.ok()) return checkpoints.status();
  absl::StatusOr<std::unique_ptr<UsageLog>> usage =
      UsageLog::Open({.folder = options.state_dir});
  if (!usage.ok()) return usage.status();
  Server server(*devices, options.threads,
                {.limits = options.limits,
                 .scheduling = SchedulingOf(options),
                 .shares = options.shares,
                 .graph_bytes = options.graph_bytes},
                *weights, MonotonicClock(), *std::move(checkpoints),
                *std::move(usage));
  std::optional<rpc::Recovery> recovery;
  if (const auto store = server.checkpoints(); store.ok()) {
    recovery.emplace(server, **store, RecoveryOf(options));
  }
  WarnOfAbsentPrincipals(options, listeners);
  std::optional<FollowedUsers> users;
  if (!options.users.empty()) {
    users.emplace(options.users, server.directory());
    absl::Status read = users->Read();
    if (!read.ok()) return PrefixMessage("--users", read);
  }
  for (DeviceWorker* const worker : server.workers()) {
    worker->OnLost([] { kill(getpid(), kDeviceLost); });
  }
  if (recovery) recovery->Restore();
  for (const std::string& option : options.instances) {
    absl::Status hosted = HostInstance(server, option, recovery.has_value());
    if (!hosted.ok()) return hosted;
  }
  absl::StatusOr<std::unique_ptr<rpc::RpcServer>> rpc_server =
      rpc::RpcServer::Start(server, {.listeners = listeners,
                                     .insecure_remote = options.insecure_remote,
                                     .reflection = options.reflection});
  if (!rpc_server.ok()) return rpc_server.status();
  if (recovery) recovery->Start();
  WarnOfOpenDoor(options, listeners);
  absl::StatusOr<std::unique_ptr<admin::AdminServer>> admin_server =
      admin::AdminServer::Start(admin_listeners,
                                {.insecure_remote = options.insecure_remote,
                                 .state_dir = options.state_dir},
                                **rpc_server);
  if (!admin_server.ok()) return admin_server.status();
  std::optional<ReadyFile> ready;
  if (!options.ready_file.empty()) {
    const absl::StatusOr<std::string> target =
        rpc::TargetOf((*rpc_server)->addresses().front());
    if (!target.ok()) return target.status();
    absl::StatusOr<ReadyFile> written =
        ReadyFile::Write(options.ready_file, *target);
    if (!written.ok()) return PrefixMessage("--ready-file", written.status());
    ready.emplace(*std::move(written));
  }
  std::cout << ServingLine(server, **rpc_server, **admin_server) << std::endl;
  if (options.die_with_parent && !std::cout) {
    // Nobody reads it: the parent ended before it was watched.
    kill(getpid(), kParentEnded);
  }
  ReloadedOptions reloaded(argc, argv, options);
  const std::function<void()> reload = [&] {
    const std::optional<Options> now = reloaded.Reload();
    if (!now) return;
    // Not that of the audit log.
    spdlog::default_logger()->set_level(
        spdlog::level::from_str(now->log_level));
    if (recovery) recovery->SetOptions(RecoveryOf(*now));
  };
  ServeUntilSignal(**rpc_server, options, users ? &*users : nullptr, reload,
                   signals);
  absl::Status saved = recovery ? recovery->SaveAll() : absl::OkStatus();
  spdlog::info("stopped");
  for (const DeviceWorker* const worker : server.workers()) {
    if (!worker->is_lost()) continue;
    return Error(absl::StatusCode::kUnavailable, Reason::kDeviceLost,
                 absl::StrCat("the device ", worker->device().str(),
                              " is lost; a new process may have it again"));
  }
  return saved;
}

// Asks the running server that --check names.
absl::Status Check(const Options& options) {
  constexpr absl::Duration kTimeout = absl::Seconds(5);
  std::string target = *options.check;
  if (target.empty()) {
    absl::StatusOr<std::vector<rpc::Listener>> listeners =
        rpc::ParseListeners(options.listen);
    if (!listeners.ok()) return listeners.status();
    TakeAdminListeners(*listeners);
    absl::StatusOr<std::string> own =
        rpc::TargetOf(listeners->front().address.text);
    if (!own.ok()) return own.status();
    target = *std::move(own);
  }
  absl::Status healthy = rpc::CheckHealth(target, kTimeout);
  if (healthy.ok()) std::cout << target << " serves" << std::endl;
  return healthy;
}

// Says what is wrong about an option, and returns the exit status.
int Misuse(std::string_view option, const absl::Status& status) {
  std::cerr << "backboned: " << option << " " << status.message() << "\n";
  return 2;
}

// Returns the exit status; an error's message goes to standard error.
int Report(const absl::Status& status) {
  if (status.ok()) return 0;
  std::cerr << "backboned: " << status.message() << "\n";
  // A supervisor helps after a lost device: it starts the server again.
  return ReasonOf(status) == Reason::kDeviceLost ? 3 : 1;
}

// Looks at what has not been looked at yet, and prints all options.
int CheckConfig(const Options& options) {
  for (const std::string& option : options.instances) {
    const CreateOptions instance = ReadInstanceOption(option);
    const absl::Status possible = MakeBlueprint(instance).status();
    if (!possible.ok()) {
      return Misuse(absl::StrCat("--instance ", option, ":"), possible);
    }
  }
  for (const auto& [option, folder] :
       {std::pair("--weights-dir", options.weights_dir),
        std::pair("--state-dir", options.state_dir)}) {
    if (folder.empty() || std::filesystem::is_directory(folder)) continue;
    return Misuse(option,
                  absl::NotFoundError(absl::StrCat(folder, " is no folder")));
  }
  for (const std::string& unknown : options.unknown_variables) {
    std::cerr << "backboned: " << unknown << "\n";
  }
  std::cout << ConfigFile::YamlOf(options.texts) << std::endl;
  return 0;
}

int Main(int argc, char** argv) {
  const std::variant<Options, int> parsed = ParseOptions(argc, argv, std::cerr);
  if (const int* exit_code = std::get_if<int>(&parsed)) return *exit_code;
  const Options& options = std::get<Options>(parsed);
  if (options.check) return Report(Check(options));
  const absl::StatusOr<std::vector<rpc::Listener>> listeners =
      rpc::ParseListeners(options.listen);
  if (!listeners.ok()) {
    return Misuse("--listen", listeners.status());
  }
  if (!options.users.empty()) {
    const absl::StatusOr<Users> users = ReadUsers(options.users);
    if (!users.ok()) return Misuse("--users", users.status());
  }
  if (options.check_config) return CheckConfig(options);
  ApplyOmpWait(options, argv);
  PrepareProcess(options);
  if (!options.audit_log.empty()) {
    const absl::Status opened = OpenAuditFile(options.audit_log);
    if (!opened.ok()) return Misuse("--audit-log", opened);
  }
  for (const std::string& unknown : options.unknown_variables) {
    spdlog::warn("{}", unknown);
  }
  return Report(
      RunCatching([&] { return Serve(options, *listeners, argc, argv); }));
}

}  // namespace
}  // namespace backboned

int main(int argc, char** argv) { return backboned::Main(argc, argv); }
