#include "server/rpc/checkpoints/recovery.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <set>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/errors.h"
#include "base/principals.h"
#include "base/task.h"
#include "server/device/device_worker.h"
#include "server/instances/beginning.h"
#include "server/limits/catching.h"
#include "server/rpc/checkpoints/saving.h"
#include "server/rpc/convert/checkpoint_convert.h"
#include "server/rpc/convert/instance_convert.h"

namespace backboned::rpc {
namespace {

// The pause between two looks at what has changed.
constexpr absl::Duration kPause = absl::Seconds(1);

// The time after which an instance that could not be saved is let sleep again.
constexpr absl::Duration kRetryPause = absl::Minutes(1);

// The bits of a version that count within one life of the server. Those above
// count the lives; both together fit a double of JavaScript.
constexpr int kVersionBits = 32;

// Work for an instance, which pays by itself: as a session of its owner's,
// since those that made the instances are gone.
DeviceWorker::Request RequestOf(Server& server, const std::string& owner,
                                const std::string& uid) {
  return {.principal = owner, .account = server.accounts().Of({owner, uid})};
}

}  // namespace

Recovery::Recovery(Server& server, CheckpointStore& store,
                   const Options& options)
    : server_(server),
      store_(store),
      options_(options),
      next_options_(options) {}

Recovery::~Recovery() {
  End();
  if (began_ || !store_.folder().is_complete()) return;
  // Nobody was served, so the folder still has all.
  store_.folder().MarkComplete().IgnoreError();
}

void Recovery::Restore() {
  for (const v1::Record& record : store_.Living()) {
    const absl::Status restored =
        RunCatching([&] { return RestoreOne(record); });
    if (restored.ok()) continue;
    all_came_back_ = false;
    spdlog::error(
        "cannot bring back instance={}/{}, which stays on the disk: {}",
        record.checkpoint().owner(), record.checkpoint().name(),
        std::string(restored.message()));
  }
}

absl::Status Recovery::RestoreOne(const v1::Record& record) {
  const v1::Instance& saved = record.checkpoint().instance();
  absl::StatusOr<CreateOptions> options = OptionsOf(record, store_);
  if (!options.ok()) return options.status();
  options->name = saved.name();
  options->owner = saved.owner();
  options->session = saved.version().uid();
  options->caller = RequestOf(server_, saved.owner(), options->session);
  // This server may have other devices than the last one.
  if (server_.FindWorker(saved.device()).ok()) options->device = saved.device();
  const StateFolder& folder = store_.folder();
  // A folder that was copied may have counted less.
  const uint64_t life =
      std::max(folder.starts(),
               (std::max(saved.version().params(), saved.version().buffers()) >>
                kVersionBits) +
                   1);
  const uint64_t version = folder.is_complete() ? 0 : life << kVersionBits;
  for (const v1::CheckpointFile& file : record.files()) {
    if (!folder.HasBlob(file.sha256(), file.bytes())) {
      return absl::FailedPreconditionError(
          absl::StrCat("the folder has no file blobs/", file.sha256(),
                       ".safetensors of ", file.bytes(), " bytes"));
    }
  }
  auto& restored = std::get<Restored>(options->beginning);
  restored.former = FormerOf(record, version);
  restored.asleep = true;
  const absl::StatusOr<Created> created =
      BlockOn(server_.CreateInstance(*options));
  if (!created.ok()) return created.status();
  Instance& instance = *created->instance;
  const StatePtr state = instance.state();
  instance.NoteSaved(*state);
  Saved& known = saved_[instance.uid()];
  known.settings = instance.settings();
  known.params_version = state->params_version;
  known.time = server_.clock().Now();
  if (version == 0) instance.MarkSaved(state);  // Else not in this version.
  spdlog::info("brought back instance={} params_version={} saved={}",
               instance.FullName(), state->params_version,
               absl::FormatTime(absl::FromUnixSeconds(
                   record.checkpoint().create_time().seconds())));
  return absl::OkStatus();
}

void Recovery::Start() {
  began_ = true;
  thread_ = std::thread([this] { Run(); });
}

void Recovery::SetOptions(const Options& options) {
  absl::MutexLock lock(&mutex_);
  next_options_ = options;
}

absl::Status Recovery::SaveAll() {
  End();
  spdlog::info("saving what changed");
  if (!SaveDue(/*all=*/true)) {
    return Error(absl::StatusCode::kInternal, Reason::kStorageFailed,
                 "not all that changed could be saved; the log says what");
  }
  // An instance that did not come back may have had versions that are lost.
  if (!all_came_back_) return absl::OkStatus();
  return store_.folder().MarkComplete();
}

void Recovery::End() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
    ended_.SignalAll();
  }
  if (thread_.joinable()) thread_.join();
}

void Recovery::Run() {
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (!ending_) ended_.WaitWithTimeout(&mutex_, kPause);
      if (ending_) return;
      options_ = next_options_;
    }
    SaveDue(/*all=*/false);
    if (options_.checkpoint_ttl == absl::InfiniteDuration()) continue;
    const absl::Status dropped =
        store_.DropOlderThan(absl::Now() - options_.checkpoint_ttl);
    if (!dropped.ok()) spdlog::warn("{}", std::string(dropped.message()));
  }
}

bool Recovery::SaveDue(bool all) {
  bool is_saved = true;
  std::set<std::string> gone;
  for (const auto& [uid, saved] : saved_) gone.insert(uid);
  std::vector<std::shared_ptr<Instance>> instances = server_.registry().List();
  for (std::shared_ptr<Instance>& each : instances) {
    const std::shared_ptr<Instance> instance = std::move(each);
    gone.erase(instance->uid());
    const StatePtr state = instance->state();
    if (IsDue(*instance, state, all)) is_saved &= Save(instance, state);
    if (!all) LetSleep(instance, state);
  }
  for (const std::string& uid : gone) Forget(uid);
  return is_saved;
}

void Recovery::LetSleep(const std::shared_ptr<Instance>& instance,
                        const StatePtr& state) {
  const absl::Time now = server_.clock().Now();
  const auto is_idle = [&] {
    return now - instance->last_used() >= options_.idle_ttl;
  };
  const Registry& registry = server_.registry();
  if (IsMeta(*state) || !is_idle() || !registry.IfUnused(instance, [] {})) {
    return;
  }
  if (!IsOnDisk(*instance, state)) {
    const auto found = saved_.find(instance->uid());
    if (found != saved_.end() && found->second.failed &&
        now - found->second.time < kRetryPause) {
      return;
    }
    if (!Save(instance, state)) return;
  }
  bool sleeps = false;
  registry.IfUnused(instance, [&] {  // A call may have used it meanwhile.
    if (!is_idle() || !IsOnDisk(*instance, state)) return;
    sleeps = instance->Sleep(state);
  });
  if (sleeps) spdlog::info("asleep instance={}", instance->FullName());
}

void Recovery::Forget(const std::string& uid) {
  saved_.erase(uid);
  const absl::Status deleted = BlockOn(
      store_.DeleteLiving({.principal = std::string(kServerPrincipal)}, uid));
  if (!deleted.ok()) spdlog::warn("{}", std::string(deleted.message()));
}

bool Recovery::IsOnDisk(const Instance& instance, const StatePtr& state) const {
  const auto found = saved_.find(instance.uid());
  return found != saved_.end() && instance.IsSaved(state) &&
         found->second.settings == instance.settings();
}

bool Recovery::IsDue(const Instance& instance, const StatePtr& state,
                     bool all) const {
  if (instance.identity().ephemeral || IsOnDisk(instance, state)) return false;
  const auto found = saved_.find(instance.uid());
  if (found == saved_.end()) return true;
  const Saved& saved = found->second;
  const uint64_t versions = state->params_version - saved.params_version;
  return all || server_.clock().Now() - saved.time >= options_.interval ||
         (options_.versions > 0 &&
          versions >= static_cast<uint64_t>(options_.versions));
}

bool Recovery::Save(const std::shared_ptr<Instance>& instance,
                    const StatePtr& state) {
  Saved saved = {.settings = instance->settings(),
                 .params_version = state->params_version};
  const absl::Status status =
      RunCatching([&] { return Write(instance, state); });
  if (status.ok()) {
    instance->MarkSaved(state);
  } else if (!instance->deleted()) {
    spdlog::warn("cannot save instance={}: {}", instance->FullName(),
                 std::string(status.message()));
  }
  saved.time = server_.clock().Now();
  saved.failed = !status.ok();
  saved_[instance->uid()] = std::move(saved);
  return status.ok();
}

absl::Status Recovery::Write(const std::shared_ptr<Instance>& instance,
                             const StatePtr& state) {
  const SaveOptions options = {.owner = instance->identity().owner,
                               .name = instance->identity().name,
                               .recovery = true};
  const DeviceWorker::Request request =
      RequestOf(server_, options.owner, instance->uid());
  if (!IsMeta(*state)) {
    return BlockOn(SaveState(store_, server_.chores(), request, instance, state,
                             options))
        .status();
  }
  // The disk has its tensors.
  const absl::StatusOr<CheckpointStore::Found> found =
      store_.FindLiving(instance->uid());
  if (!found.ok()) return found.status();
  const v1::Instance now = ToProto(*instance, *state);
  const std::function<absl::Status()> check_wanted = [&] {
    return instance->CheckAlive();
  };
  return BlockOn(store_.Rewrite(request, *found, now, check_wanted));
}

}  // namespace backboned::rpc
